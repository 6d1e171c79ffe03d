"""What an encoder says about rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextStates:
    """What a text tower says about N rows, in the tower's dtype and on the device it computed on."""

    hidden: Tensor  # (N, L, D)
    pooled: Tensor | None  # (N, D), after the final norm, before the projection; None where the model pools nothing
    projected: Tensor | None  # (N, P), None where the model has no projection


def joined(parts: Sequence[TextStates]) -> TextStates:
    """Several batches of one tower as one, in order."""
    if len(parts) == 1:
        return parts[0]
    pooled = [part.pooled for part in parts if part.pooled is not None]
    projected = [part.projected for part in parts if part.projected is not None]
    return TextStates(
        hidden=torch.cat([part.hidden for part in parts]),
        pooled=torch.cat(pooled) if pooled else None,
        projected=torch.cat(projected) if projected else None,
    )
