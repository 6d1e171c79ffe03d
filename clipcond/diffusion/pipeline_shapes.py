"""The pipelines by shape: the components that encode, the prompts that they read, and the call's names of the tensors.

A shape is recognised by the parts of a pipeline and the arguments of its call, never by the name of its class, so that
img2img, inpaint, ControlNet and a user's own subclass are of the shape of their family. To add one: a row of `SHAPES`, a
layout in `clipcond.condition.families`, the encoders in `clipcond.prompt.families`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from clipcond.condition.families import LAYOUTS, T5
from clipcond.errors import ModelError

SUPPORTED = (
    "supported are pipelines of the Stable Diffusion 1, 2, XL and 3, Stable Cascade, Flux, HunyuanVideo and Kandinsky 5 "
    "and 6 shapes: CLIP text encoders with CLIP's own vocabulary, and prompt embeds in the call"
)
_MIDDLE_AXIS = ("prompt_embeds_pooled", "negative_prompt_embeds_pooled")  # arguments of shape (B, 1, P)


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of an encoder in a pipeline: its component, its tokenizer's, and the suffix of the prompt that it reads."""

    module: str = "text_encoder"
    tokenizer: str = "tokenizer"
    suffix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One way in which pipelines hold and take text.

    family: of `clipcond.prompt.families`.   layout: of `clipcond.condition.families`.   slots: by encoder, in the order of
    the pipeline.   arguments: of the call, by our names of the tensors, where they differ.   optional: encoders that may
    be missing.   composes: the denoiser takes both sides of guidance in one batch, so that AND can be composed in it.
    own_negative: no negative prompt leaves that side to the pipeline.   language: of `clipcond.diffusion.language_models`,
    for a pipeline that asks a language model too.
    """

    family: str
    layout: str
    slots: Mapping[str, Slot]
    arguments: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    composes: bool = True
    own_negative: bool = False
    language: str = ""


_ONE, _TWO, _THREE = Slot(), Slot("text_encoder_2", "tokenizer_2", "_2"), Slot("text_encoder_3", "tokenizer_3", "_3")
_XL = {"clip_l": _ONE, "clip_g": _TWO}
_EDITING = {"prompt_embeds": "editing_prompt_embeds"}
_EDITING_XL = {
    "prompt_embeds": "editing_prompt_embeddings",
    "pooled_prompt_embeds": "editing_pooled_prompt_embeds",
}
_CASCADE = {
    "pooled_prompt_embeds": "prompt_embeds_pooled",
    "negative_pooled_prompt_embeds": "negative_prompt_embeds_pooled",
}

_KANDINSKY5 = {
    "prompt_embeds": "prompt_embeds_qwen",
    "negative_prompt_embeds": "negative_prompt_embeds_qwen",
    "pooled_prompt_embeds": "prompt_embeds_clip",
    "negative_pooled_prompt_embeds": "negative_prompt_embeds_clip",
}


def _kandinsky(family: str, language: str, arguments: Mapping[str, str]) -> Shape:
    slots = {"clip_l": Slot("text_encoder_2", "tokenizer_2")}
    return Shape(
        family=family, layout="pooled", slots=slots, arguments=arguments, composes=False, own_negative=True,
        language=language,
    )  # fmt: skip


SHAPES: Mapping[str, Shape] = {
    "sd15": Shape(family="sd15", layout="sd15", slots={"clip_l": _ONE}),
    "sd2": Shape(family="sd2", layout="sd2", slots={"clip_h": _ONE}),
    "upscaler": Shape(family="sd15", layout="upscaler", slots={"clip_l": _ONE}),
    "sdxl": Shape(family="sdxl", layout="sdxl", slots=_XL),
    "refiner": Shape(family="sdxl", layout="refiner", slots={"clip_g": Slot("text_encoder_2", "tokenizer_2", "")}),
    "sd3": Shape(family="sd3", layout="sd3", slots={"clip_l": _ONE, "clip_g": _TWO, T5: _THREE}, optional=(T5,)),
    "flux": Shape(family="flux", layout="flux", slots={"clip_l": _ONE, T5: _TWO}, composes=False, own_negative=True),
    "cascade": Shape(family="cascade", layout="cascade", slots={"clip_g": _ONE}, arguments=_CASCADE, composes=False),
    "hunyuan-video": Shape(
        family="hunyuan-video",
        layout="pooled",
        slots={"clip_l": _TWO},
        composes=False,
        own_negative=True,
        language="hunyuan-video",
    ),
    "kandinsky5": _kandinsky("kandinsky5", "kandinsky5", _KANDINSKY5),
    "kandinsky5-video": _kandinsky("kandinsky5-video", "kandinsky5", _KANDINSKY5),
    "kandinsky6": _kandinsky("kandinsky6", "kandinsky6", {}),
    "editing": Shape(family="sd15", layout="sd15", slots={"clip_l": _ONE}, arguments=_EDITING, composes=False),
    "editing-xl": Shape(family="sdxl", layout="sdxl", slots=_XL, arguments=_EDITING_XL, composes=False),
}


def shape_of(name: str, parts: Mapping[str, Any], takes: Collection[str]) -> str:
    """Return the name of a pipeline's shape.

    name: its class, for messages.   parts: its components.   takes: the arguments of its call.
    Raises ModelError for a pipeline of none.
    """
    if "prompt_embeds_pooled" in takes:
        return "cascade"
    if "prompt_embeds_scale" in takes:  # Flux Redux: the encoders of Flux, and no denoiser
        return "flux"
    language = type(getattr(parts.get("text_encoder"), "_orig_mod", parts.get("text_encoder"))).__name__
    if language.startswith(("Llama", "Qwen", "Llava")) and "text_encoder_2" in parts and "text_encoder_3" not in parts:
        return _language_shape(name, parts, takes, language)
    for other in ("prior", "text_encoder_4"):
        if parts.get(other) is not None:
            raise ModelError(f"{name} is of a family with {other}; {SUPPORTED}")
    if parts.get("unet") is not None:
        return _unet_shape(parts, takes)
    if parts.get("transformer") is not None:
        return "sd3" if "text_encoder_3" in parts else "flux"
    raise ModelError(f"{name} has no unet and no transformer; {SUPPORTED}")


def _language_shape(name: str, parts: Mapping[str, Any], takes: Collection[str], language: str) -> str:
    pictures = {"image", "prompt_cu_seqlens"} <= set(takes) and "num_frames" not in takes
    if pictures or language.startswith("Llava"):
        raise ModelError(
            f"the language model of {name} reads the picture with the prompt; give the pipeline the prompt"
        )
    if language.startswith("Llama"):
        return "hunyuan-video"
    if "prompt_cu_seqlens" not in takes:
        return "kandinsky6"
    return "kandinsky5-video" if "num_frames" in takes else "kandinsky5"


def _unet_shape(parts: Mapping[str, Any], takes: Collection[str]) -> str:
    editing = any(name.startswith("editing_prompt_embed") for name in takes)
    if "text_encoder_2" not in parts:
        if editing:
            return "editing"
        return "upscaler" if "pooled_prompt_embeds" in takes else "sd15"
    if editing:
        return "editing-xl"
    return "refiner" if parts.get("text_encoder") is None else "sdxl"


def lacking(shape: Shape, takes: Collection[str]) -> str:
    """Return the argument that a call lacks to be conditioned, empty where it has what its shape wants."""
    if "task_prompt" in takes:  # VisualCloze wants it always, and refuses embeds beside it
        return "prompt_embeds without task_prompt"
    wanted = ("prompt_embeds", "pooled_prompt_embeds")[: 1 + bool(LAYOUTS[shape.layout].pooled)]
    return next((name for name in wanted if shape.arguments.get(name, name) not in takes), "")


def as_arguments(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return tensors under a call's names, with the axes that it wants. names: those that differ from ours."""
    named = {names.get(name, name): tensor for name, tensor in tensors.items()}
    return {name: tensor[:, None] if name in _MIDDLE_AXIS else tensor for name, tensor in named.items()}
