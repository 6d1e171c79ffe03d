"""The places of one pass of a text encoder: special tokens around the content, padding behind it or before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from clipcond.errors import ModelError

LARGEST_LENGTH = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLayout:
    """The shape of the row that the token ids of a text become.

    length: L, the most positions of a row.   before, after: special ids around the content.   last: ids at the very end,
    behind the padding.   padded: to `length`, where the encoder sees its padding or counts positions from the end; or to
    the `longest` row of a batch.   Raises ModelError where no content fits.
    """

    length: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    pad: int
    padded: Literal["length", "longest"] = "length"
    side: Literal["right", "left"] = "right"
    last: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.content < 1 or self.length > LARGEST_LENGTH:
            special = self.length - self.content
            raise ModelError(
                f"a text encoder of {self.length} positions, {special} of them special; "
                f"expected room for content, and at most {LARGEST_LENGTH} positions"
            )

    @property
    def content(self) -> int:
        """The most content tokens of a row."""
        return self.length - len(self.before) - len(self.after) - len(self.last)

    def chunks(self, ids: Sequence[int]) -> list[list[int]]:
        """Cut the content ids of a text into pieces that fit; one empty piece for none."""
        return [list(ids[at : at + self.content]) for at in range(0, max(1, len(ids)), self.content)]

    def rows(self, chunks: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[list[int]]]:
        """Return the ids and the attention mask (1 where there is no padding) of some chunks, rows of one length."""
        longest = max(map(len, chunks))
        room = self.content if self.padded == "length" else longest
        ids, mask = [], []
        for chunk in chunks:
            core = [*self.before, *chunk, *self.after]
            gap = [self.pad] * (room - len(chunk))
            text = [*core, *gap] if self.side == "right" else [*gap, *core]
            seen = [1] * len(core)
            hidden = [0] * len(gap)
            ids.append([*text, *self.last])
            mask.append([*([*seen, *hidden] if self.side == "right" else [*hidden, *seen]), *[1] * len(self.last)])
        return ids, mask
