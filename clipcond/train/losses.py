"""The contrastive loss and the bounds of its temperature."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

MAX_LOGIT_SCALE = math.log(100)


def info_nce(images: Tensor, texts: Tensor, logit_scale: Tensor, false_negatives: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE: every image must find its text among the batch's, and every text its image.

    images, texts: (B, P) unit rows of matching pairs, any float dtype.   logit_scale: scalar, log of 1/temperature.
    false_negatives: (B, B) bool, images by texts; pairs off the diagonal that belong together too and count for nothing.
    Returns a float32 scalar (float64 for float64 input); nothing is computed in less than float32.
    """
    wide = torch.float64 if images.dtype == torch.float64 else torch.float32
    logits = logit_scale.to(wide).exp() * (images.to(wide) @ texts.to(wide).T)
    if false_negatives is not None:
        logits = logits.masked_fill(false_negatives, -torch.inf)
    labels = torch.arange(len(logits), device=logits.device)
    return 0.5 * (cross_entropy(logits, labels) + cross_entropy(logits.T, labels))


@torch.no_grad()
def clamp_logit_scale(logit_scale: Tensor) -> None:
    """Keep the temperature in [1/100, 1], in place; to be called after each optimizer step."""
    logit_scale.clamp_(0.0, MAX_LOGIT_SCALE)
