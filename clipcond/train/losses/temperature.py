"""The learned temperature of contrastive losses: where it starts, and its bounds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_LOGIT_SCALE = math.log(100)
SIGLIP_LOGIT_SCALE = math.log(10)
SIGLIP_LOGIT_BIAS = -10.0


@torch.no_grad()
def clamp_logit_scale(logit_scale: Tensor) -> None:
    """Keep a temperature that trains in [1/100, 1], in place; to be called after each optimizer step."""
    if logit_scale.requires_grad:
        logit_scale.clamp_(0.0, MAX_LOGIT_SCALE)
