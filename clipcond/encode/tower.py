"""What the conditioning needs of a text encoder, CLIP or T5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from clipcond.encode.rows import MAX_TOKENS, Row
from clipcond.encode.text_states import TextStates


class Tower(Protocol):
    """An encoder of rows. TextTower and T5Tower are two."""

    @property
    def width(self) -> int:
        """D, the width of token states."""

    @property
    def device(self) -> torch.device:
        """Where the tower computes."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the states."""

    def fingerprint(self) -> str:
        """The same text for the same weights and adapters, another one for others."""

    def encode_rows(
        self,
        rows: Sequence[Row],
        *,
        vectors: Mapping[str, Tensor] = ...,
        clip_skip: int = 0,
        final_norm: bool = True,
        max_tokens: int = MAX_TOKENS,
    ) -> TextStates:
        """The states of N rows of one length, in order and without a graph."""
