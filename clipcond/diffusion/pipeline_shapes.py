"""The pipelines by shape: the components that encode, the prompts that they read, and the call's names of the tensors.

A shape is recognised by the parts of a pipeline and the arguments of its call, never by the name of its class, so that
img2img, inpaint, ControlNet and a user's own subclass are of the shape of their family. To add one: a row of `SHAPES`, a
layout in `clipcond.condition.families`, the encoders in `clipcond.prompt.families`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clipcond.condition.families import LAYOUTS, T5
from clipcond.errors import ModelError

SUPPORTED = (
    "supported are pipelines of the Stable Diffusion 1, 2, XL and 3, Stable Cascade, Würstchen, unCLIP, aMUSEd, Flux, "
    "HiDream, HunyuanVideo and Kandinsky 5 and 6 shapes: CLIP text encoders with CLIP's own vocabulary, and prompt embeds "
    "in the call"
)
PROMPT_AXIS: Mapping[str, int] = {  # the axis of prompts of a tensor, where it is not the first
    "prompt_embeds_llama3": 1,
    "negative_prompt_embeds_llama3": 1,
}
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
    the pipeline.   arguments: of the call, by our names of the tensors, where they differ; those of one argument go as a
    tuple, in this order.   optional: encoders that may be missing.   composes: the denoiser takes both sides of guidance in
    one batch, so that AND can be composed in it.   own_negative: no negative prompt leaves that side to the pipeline.
    language: of `clipcond.diffusion.language_models`, for a pipeline that asks a language model too.   shown: that model
    reads the picture with the prompt.   language_slot: the place of that.   fixed: its mask, or the ends of its texts, stay
    those of the first step.   longest: the positions that CLIP's chunks have at most, where the pipeline makes them as long
    as `max_sequence_length` says; 0 where they have a length of their own.
    """

    family: str
    layout: str
    slots: Mapping[str, Slot]
    arguments: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    composes: bool = True
    own_negative: bool = False
    language: str = ""
    shown: bool = False
    language_slot: Slot = Slot()
    fixed: bool = False
    longest: int = 0


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

_UNCLIP = {
    "pooled_prompt_embeds": "text_model_output",
    "prompt_embeds": "text_model_output",
    "prompt_attention_mask": "text_attention_mask",
}
_AMUSED = {
    "prompt_embeds": "encoder_hidden_states",
    "negative_prompt_embeds": "negative_encoder_hidden_states",
    "pooled_prompt_embeds": "prompt_embeds",
    "negative_pooled_prompt_embeds": "negative_prompt_embeds",
}
_HIDREAM = {"prompt_embeds": "prompt_embeds_t5", "negative_prompt_embeds": "negative_prompt_embeds_t5"}
_KANDINSKY5 = {
    "prompt_embeds": "prompt_embeds_qwen",
    "negative_prompt_embeds": "negative_prompt_embeds_qwen",
    "pooled_prompt_embeds": "prompt_embeds_clip",
    "negative_pooled_prompt_embeds": "negative_prompt_embeds_clip",
}


def _kandinsky(family: str, language: str, arguments: Mapping[str, str], *, shown: bool = False) -> Shape:
    slots = {"clip_l": Slot("text_encoder_2", "tokenizer_2")}
    return Shape(
        family=family, layout="pooled", slots=slots, arguments=arguments, composes=False, own_negative=True,
        language=language, fixed=True, shown=shown,
    )  # fmt: skip


def _hunyuan(family: str, *, shown: bool = False) -> Shape:
    return Shape(
        family=family, layout="pooled", slots={"clip_l": _TWO}, composes=False, own_negative=True, language=family,
        fixed=True, shown=shown,
    )  # fmt: skip


SHAPES: Mapping[str, Shape] = {
    "sd15": Shape(family="sd15", layout="sd15", slots={"clip_l": _ONE}),
    "sd2": Shape(family="sd2", layout="sd2", slots={"clip_h": _ONE}),
    "upscaler": Shape(family="sd15", layout="upscaler", slots={"clip_l": _ONE}),
    "sdxl": Shape(family="sdxl", layout="sdxl", slots=_XL),
    "refiner": Shape(family="sdxl", layout="refiner", slots={"clip_g": Slot("text_encoder_2", "tokenizer_2", "")}),
    "sd3": Shape(family="sd3", layout="sd3", slots={"clip_l": _ONE, "clip_g": _TWO, T5: _THREE}, optional=(T5,)),
    "flux": Shape(family="flux", layout="flux", slots={"clip_l": _ONE, T5: _TWO}, composes=False, own_negative=True),
    "hidream": Shape(
        family="hidream",
        layout="hidream",
        slots={"clip_l": _ONE, "clip_g": _TWO, T5: _THREE},
        arguments=_HIDREAM,
        composes=False,
        language="hidream",
        language_slot=Slot("text_encoder_4", "tokenizer_4", "_4"),
        longest=218,
    ),
    "cascade": Shape(family="cascade", layout="cascade", slots={"clip_g": _ONE}, arguments=_CASCADE, composes=False),
    "wuerstchen": Shape(family="cascade", layout="wuerstchen", slots={"clip_g": _ONE}, composes=False),
    "unclip": Shape(family="sd15", layout="unclip", slots={"clip_l": _ONE}, arguments=_UNCLIP, composes=False),
    "amused": Shape(family="sd15", layout="amused", slots={"clip_l": _ONE}, arguments=_AMUSED, composes=False),
    "hunyuan-video": _hunyuan("hunyuan-video"),
    "hunyuan-video-i2v": _hunyuan("hunyuan-video-i2v", shown=True),
    "kandinsky5": _kandinsky("kandinsky5", "kandinsky5", _KANDINSKY5),
    "kandinsky5-video": _kandinsky("kandinsky5-video", "kandinsky5", _KANDINSKY5),
    "kandinsky5-i2i": _kandinsky("kandinsky5-i2i", "kandinsky5-i2i", _KANDINSKY5, shown=True),
    "kandinsky6": _kandinsky("kandinsky6", "kandinsky6", {}),
    "editing": Shape(family="sd15", layout="sd15", slots={"clip_l": _ONE}, arguments=_EDITING, composes=False),
    "editing-xl": Shape(family="sdxl", layout="sdxl", slots=_XL, arguments=_EDITING_XL, composes=False),
}

_BY_ARGUMENT = {  # of a call that no other shape has
    "prompt_embeds_pooled": "cascade",
    "prompt_embeds_scale": "flux",  # Flux Redux: the encoders of Flux, and no denoiser
    "prompt_embeds_llama3": "hidream",
    "text_model_output": "unclip",
    "negative_encoder_hidden_states": "amused",
}
_STAGES = ("prior", "prior_prior", "decoder", "text_unet")  # of pipelines that draw in several, or in another way


def shape_of(name: str, parts: Mapping[str, Any], takes: Collection[str]) -> str:
    """Return the name of a pipeline's shape.

    name: its class, for messages.   parts: its components.   takes: the arguments of its call.
    Raises ModelError for a pipeline of none.
    """
    for argument, shape in _BY_ARGUMENT.items():
        if argument in takes:
            return shape
    language = type(getattr(parts.get("text_encoder"), "_orig_mod", parts.get("text_encoder"))).__name__
    if language.startswith(("Llama", "Qwen", "Llava")) and "text_encoder_2" in parts and "text_encoder_3" not in parts:
        return _language_shape(takes, language)
    _refuse_own_prompts(name, parts, takes)
    if parts.get("prior") is not None:
        return "wuerstchen"
    if parts.get("unet") is not None:
        return _unet_shape(parts, takes)
    if parts.get("transformer") is not None:
        return "sd3" if "text_encoder_3" in parts else "flux"
    raise ModelError(f"{name} has no unet and no transformer; {SUPPORTED}")


def _refuse_own_prompts(name: str, parts: Mapping[str, Any], takes: Collection[str]) -> None:
    """Raise ModelError for a pipeline of several stages of which one reads the prompt itself, and for other families."""
    if "prior_prior" in parts and "prompt_embeds" in takes:
        raise ModelError(f"the decoder of {name} reads the prompt itself; condition its prior_pipe")
    if "prior_text_encoder" in parts and "prompt_embeds" in takes:
        raise ModelError(
            f"{name} takes prompt_embeds in place of the prompt, which its prior then lacks; give the pipeline the prompt"
        )
    for other in ("prior", "text_encoder_4"):
        if parts.get(other) is not None and (other != "prior" or "unet" in parts):
            raise ModelError(f"{name} is of a family with {other}; {SUPPORTED}")
    if any(part in parts for part in _STAGES) and "prompt_embeds" not in takes:
        raise ModelError(f"{name} takes no prompt_embeds; {SUPPORTED}")


def _language_shape(takes: Collection[str], language: str) -> str:
    if language.startswith("Llava"):
        return "hunyuan-video-i2v"
    if language.startswith("Llama"):
        return "hunyuan-video"
    if "prompt_cu_seqlens" not in takes:
        return "kandinsky6"
    if "num_frames" in takes:
        return "kandinsky5-video"
    return "kandinsky5-i2i" if "image" in takes else "kandinsky5"


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


def as_arguments(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Any]:
    """Return tensors under a call's names, with the axes that it wants. names: those that differ from ours.

    Tensors that share a name are a tuple, in the order of `names`.
    """
    order = [*(name for name in names if name in tensors), *(name for name in tensors if name not in names)]
    found: dict[str, list[Tensor]] = {}
    for ours in order:
        theirs = names.get(ours, ours)
        found.setdefault(theirs, []).append(tensors[ours][:, None] if theirs in _MIDDLE_AXIS else tensors[ours])
    return {name: each[0] if len(each) == 1 else tuple(each) for name, each in found.items()}


def repeated_rows(name: str, tensor: Tensor, count: int) -> Tensor:
    """Return a tensor of a call with each prompt's rows `count` times, one after the other. name: the call's."""
    if name.endswith("cu_seqlens"):  # ends of texts that are laid end to end
        ends = tensor.diff().repeat_interleave(count).cumsum(dim=0)
        return torch.cat([tensor[:1], ends.to(tensor.dtype) + tensor[:1]])
    return tensor.repeat_interleave(count, dim=PROMPT_AXIS.get(name, 0))
