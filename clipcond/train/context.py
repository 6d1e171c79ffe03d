"""More positions for a text tower, stretched from those that it has (Long-CLIP, arXiv 2403.15378).

The first 20 positions, in which most captions lie, stay as they are and do not train; each of the other 57 becomes
several, on the straight line to its neighbour.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clipcond.errors import ModelError
from clipcond.models.trainable import Trainable
from clipcond.prompt.tokenizer import CONTEXT
from clipcond.train.config_checks import CONTEXT_LENGTHS

KEPT = 20
_FACTORS = {length: (length - KEPT) // (CONTEXT - KEPT) for length in CONTEXT_LENGTHS}


def stretched(positions: Tensor, factor: int) -> Tensor:
    """Return (KEPT + factor · (L - KEPT), D) positions of (L, D): the first as they are, the others `factor` times as many.

    Between two positions lie factor - 1 new ones, evenly; behind the last its distance to the one before goes on.
    """
    first, rest = positions[:KEPT], positions[KEPT:]
    following = torch.cat([rest[1:], 2 * rest[-1:] - rest[-2:-1]])
    parts = torch.arange(factor, device=positions.device).view(1, factor, 1) / factor
    between = torch.lerp(rest[:, None], following[:, None], parts.to(positions))
    return torch.cat([first, between.flatten(0, 1)])


def lengthen(trainable: Trainable, length: int | None, name: str) -> None:
    """Give a text tower of 77 positions so many, in place and in its config; None for those that it has.

    Raises ModelError for a tower that has others already.   name: of the model, for messages.
    """
    model: Any = trainable.model
    own: nn.Parameter = model.positional_embedding
    if length is None or length == len(own):
        return
    if len(own) != CONTEXT:
        raise ModelError(f"{name} reads {len(own)} positions; context_length stretches {CONTEXT} of them: leave it out")
    longer = stretched(own.detach(), _FACTORS[length])
    model.positional_embedding = nn.Parameter(longer, requires_grad=own.requires_grad)
    mask = torch.full((length, length), float("-inf"), device=own.device)
    model.attn_mask, model.context_length = mask.triu_(1), length
    config = trainable.config["model_cfg"]
    trainable.config["model_cfg"] = config | {"text_cfg": config["text_cfg"] | {"context_length": length}}


def hold_first_positions(model: Any) -> None:
    """Take the first positions of a tower of more than 77 out of training; the others go on."""
    if len(model.positional_embedding) > CONTEXT and model.positional_embedding.requires_grad:
        model.positional_embedding.register_hook(_without_first)


def _without_first(gradient: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(gradient[:KEPT]), gradient[KEPT:]])
