"""The interface of a text encoder, CLIP or T5, to the conditioning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clipcond.encode.rows import MAX_TOKENS, TokenSequence


class Tower(Protocol):
    """An encoder of rows. TextTower and T5Tower are two."""

    @property
    def width(self) -> int:
        """D, the width of token states."""

    @property
    def device(self) -> torch.device:
        """The device on which the tower computes."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the states."""

    def fingerprint(self) -> str:
        """The same text for the same weights and adapters, another one for others."""

    def encode_rows(
        self,
        rows: Sequence[TokenSequence],
        *,
        vectors: Mapping[str, Tensor] = ...,
        clip_skip: int = 0,
        final_norm: bool = True,
        max_tokens: int = MAX_TOKENS,
    ) -> TextStates:
        """The states of N rows of one length, in order and without a graph."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextStates:
    """A text tower's output for N rows, in the tower's dtype and on the device it computed on."""

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
