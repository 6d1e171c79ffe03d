"""Both encoders of a CLIP model as one value, from a model whose weights are in place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from clipcond.encode.image import ImageTower
from clipcond.encode.text import TextTower
from clipcond.errors import ModelError
from clipcond.models.checks import check_finite_weights


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DualEncoder:
    """A text and an image encoder that share a space."""

    name: str  # the spec it was loaded by
    text: TextTower
    image: ImageTower
    logit_scale: float  # exp of the learned temperature; 100 for OpenAI's models
    normalisation: Literal["openai", "transformers"]  # how its prompts are tokenised
    notes: tuple[str, ...] = ()  # what a user should know about how it was loaded, a line each
    pipeline_layers: int | None = None  # of the text tower, that pipelines read; None for all that their family reads


def _ready(spec: str, model: Any, device: str) -> Any:
    """Return a model in float32, for inference, on the device. Raises ModelError for weights that are not finite."""
    model = model.float().eval().requires_grad_(False)
    check_finite_weights(spec, model)
    return model.to(device)


def dual_from_open_clip(
    spec: str,
    model: Any,
    preprocess: Mapping[str, Any],
    device: str,
    notes: tuple[str, ...] = (),
    pipeline_layers: int | None = None,
) -> DualEncoder:
    """Return both towers of an open_clip model, in float32 and ready for inference. Raises ModelError."""
    model = _ready(spec, model, device)
    return DualEncoder(
        name=spec,
        text=TextTower.from_open_clip(model),
        image=ImageTower.from_open_clip(model, preprocess),
        logit_scale=_logit_scale(spec, model),
        normalisation="openai",
        notes=notes,
        pipeline_layers=pipeline_layers,
    )


def dual_from_transformers(
    spec: str, model: Any, processor: Mapping[str, Any], device: str, notes: tuple[str, ...] = ()
) -> DualEncoder:
    """Return both towers of a transformers CLIPModel, in float32 and ready for inference. Raises ModelError."""
    model = _ready(spec, model, device)
    return DualEncoder(
        name=spec,
        text=TextTower.from_transformers(model),
        image=ImageTower.from_transformers(model, processor),
        logit_scale=_logit_scale(spec, model),
        normalisation="transformers",
        notes=notes,
    )


def _logit_scale(spec: str, model: Any) -> float:
    scale = float(model.logit_scale.exp())
    if not math.isfinite(scale):
        raise ModelError(f"{spec} has a logit_scale whose exponential is not finite; expected about 4.6")
    return scale
