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

from clipcond.condition.families import T5
from clipcond.errors import ModelError

SUPPORTED = (
    "supported are pipelines of the Stable Diffusion 1, 2, XL and 3, Stable Cascade and Flux shapes: CLIP text encoders "
    "with CLIP's own vocabulary, with T5 in SD3 and Flux, and prompt embeds in the call"
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
    """

    family: str
    layout: str
    slots: Mapping[str, Slot]
    arguments: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    composes: bool = True


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

SHAPES: Mapping[str, Shape] = {
    "sd15": Shape(family="sd15", layout="sd15", slots={"clip_l": _ONE}),
    "sd2": Shape(family="sd2", layout="sd2", slots={"clip_h": _ONE}),
    "upscaler": Shape(family="sd15", layout="upscaler", slots={"clip_l": _ONE}),
    "sdxl": Shape(family="sdxl", layout="sdxl", slots=_XL),
    "refiner": Shape(family="sdxl", layout="refiner", slots={"clip_g": Slot("text_encoder_2", "tokenizer_2", "")}),
    "sd3": Shape(family="sd3", layout="sd3", slots={"clip_l": _ONE, "clip_g": _TWO, T5: _THREE}, optional=(T5,)),
    "flux": Shape(family="flux", layout="flux", slots={"clip_l": _ONE, T5: _TWO}, composes=False),
    "cascade": Shape(family="cascade", layout="cascade", slots={"clip_g": _ONE}, arguments=_CASCADE, composes=False),
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
    for other in ("prior", "text_encoder_4"):
        if parts.get(other) is not None:
            raise ModelError(f"{name} is of a family with {other}; {SUPPORTED}")
    if parts.get("unet") is not None:
        return _unet_shape(parts, takes)
    if parts.get("transformer") is not None:
        return "sd3" if "text_encoder_3" in parts else "flux"
    raise ModelError(f"{name} has no unet and no transformer; {SUPPORTED}")


def _unet_shape(parts: Mapping[str, Any], takes: Collection[str]) -> str:
    editing = any(name.startswith("editing_prompt_embed") for name in takes)
    if "text_encoder_2" not in parts:
        if editing:
            return "editing"
        return "upscaler" if "pooled_prompt_embeds" in takes else "sd15"
    if editing:
        return "editing-xl"
    return "refiner" if parts.get("text_encoder") is None else "sdxl"


def as_arguments(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return tensors under a call's names, with the axes that it wants. names: those that differ from ours."""
    named = {names.get(name, name): tensor for name, tensor in tensors.items()}
    return {name: tensor[:, None] if name in _MIDDLE_AXIS else tensor for name, tensor in named.items()}
