"""Both encoders of a model as one value, from a model whose weights are in place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clipcond.encode.image import ImageTower
from clipcond.encode.logits import LogitHead
from clipcond.encode.text import TextTower
from clipcond.encode.text_embedder import TextEmbedder, clip_embedder
from clipcond.encode.tokenizers import ClipTokenizer
from clipcond.errors import ModelError
from clipcond.models.checks import check_finite_weights


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DualEncoder:
    """A text and an image encoder that share a space."""

    name: str  # the spec it was loaded by
    texts: TextEmbedder  # texts to vectors
    image: ImageTower  # pictures to vectors
    head: LogitHead  # cosines to logits and probabilities
    notes: tuple[str, ...] = ()  # what a user should know about how it was loaded, a line each
    pipeline_layers: int | None = None  # of the text tower, that pipelines read; None for all that their family reads

    @property
    def reads_clip_tokens(self) -> bool:
        """True for a CLIP text tower: causal, pooled at the end of text, over CLIP's own tokens."""
        return self.texts.tower is not None

    @property
    def text(self) -> TextTower:
        """The CLIP text tower. Raises ModelError for a text encoder of another kind, which `texts` alone has."""
        if self.texts.tower is None:
            raise ModelError(
                f"{self.name} does not read prompts as CLIP does (tokens of {self.texts.tokenizer.name}, "
                f"{self.texts.layout.length} positions, pooled at the {self.texts.pooling}); it scores and ranks, "
                "and that is all it is good for"
            )
        return self.texts.tower

    @property
    def logit_scale(self) -> float:
        """exp of the learned temperature; 100 for OpenAI's models."""
        return self.head.scale

    @property
    def normalisation(self) -> Literal["openai", "transformers"]:
        """The way in which texts become CLIP's tokens. Raises ModelError for other tokens."""
        if not isinstance(self.texts.tokenizer, ClipTokenizer):
            raise ModelError(f"{self.name} does not read CLIP's tokens but those of {self.texts.tokenizer.name}")
        return self.texts.tokenizer.normalisation


def ready(spec: str, model: Any, device: str) -> Any:
    """Return a model in float32, for inference, on the device. Raises ModelError for weights that are not finite."""
    model = model.float().eval().requires_grad_(False)
    check_finite_weights(spec, model)
    return model.to(device)


def dual_from_transformers(
    spec: str, model: Any, processor: Mapping[str, Any], device: str, notes: tuple[str, ...] = ()
) -> DualEncoder:
    """Return both towers of a transformers CLIPModel, in float32 and ready for inference. Raises ModelError."""
    model = ready(spec, model, device)
    return DualEncoder(
        name=spec,
        texts=clip_embedder(TextTower.from_transformers(model), ClipTokenizer("transformers")),
        image=ImageTower.from_transformers(model, processor),
        head=logit_head(spec, model),
        notes=notes,
    )


def logit_head(spec: str, model: nn.Module) -> LogitHead:
    """The scale, the bias and the activation of a model's logits: sigmoid where it has a bias, as SigLIP does.

    Raises ModelError for a scale or a bias that is not finite.
    """
    own: Tensor | None = getattr(model, "logit_scale", None)
    bias: Tensor | None = getattr(model, "logit_bias", None)
    scale = 1.0 if own is None else float(own.exp())
    shift = 0.0 if bias is None else float(bias)
    if not math.isfinite(scale):
        raise ModelError(f"{spec} has a logit_scale whose exponential is not finite; expected about 4.6")
    if not math.isfinite(shift):
        raise ModelError(f"{spec} has a logit_bias that is not finite; expected about -10")
    return LogitHead(scale=scale, bias=shift, activation="softmax" if bias is None else "sigmoid")


def on_device_of(model: nn.Module, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors on the device of a model's weights."""
    device: torch.device = next(model.parameters()).device
    return tuple(tensor.to(device) for tensor in tensors)
