"""The values of compel's `.swap()`: the edited side of a prompt, and the tokens that it changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Span = tuple[Literal["equal", "replace"], int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """The swaps of one part of a prompt.

    spans: (`equal` or `replace`, start, end in the original, start, end in the edited prompt), in tokens: 0 is BOS, the last
    span the EOS, and chunks are not counted.   options: of each `replace`, in order: the shares of the steps, `s_start` to
    `s_end` for self-attention and `t_start` to `t_end` for cross-attention, in which the original's maps are used.
    """

    part: int
    spans: tuple[Span, ...]
    options: tuple[Mapping[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Edited:
    """The edited side of prompts with `.swap()`, of one shape with the original's tensors."""

    prompt_embeds: Tensor  # (B, T, D)
    pooled_prompt_embeds: Tensor | None = None  # (B, P)
    edits: tuple[tuple[Edit, ...], ...]  # of each of the prompts; none where nothing is swapped
