"""The matrix of similarities of a batch, gone through in strips of rows: only one strip is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clipcond.train.losses.matches import Matches, gather_columns
from clipcond.train.ranks import ALONE, Ranks

_STRIP = {"cpu": 1 << 22}  # elements: 16 MiB of float32, near to a processor's cache
_STRIP_ELSEWHERE = 1 << 26


@dataclass(frozen=True, slots=True)
class Strip:
    """Rows of the matrix, against its first `width` columns.

    own: the column of the first row's own text, from where each following row's is one further; None for rows of extra
    images, which are candidates for the texts of pairs and ask for nothing themselves.
    """

    rows: slice
    width: int
    own: int | None

    def diagonal(self, values: Tensor) -> Tensor:
        """Return the view of a (r, width) strip's elements of true pairs."""
        assert self.own is not None
        return values[:, self.own : self.own + len(values)].diagonal()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """Rows and columns of the matrix as the loss needs them: b own images and extra ones, all n texts and extra ones.

    rows: (b + F, P), columns: (n + E, P), float32 or float64. pairs: b. first: the column of the first own pair.
    texts: n, over all ranks. matches: None, or of these rows and columns.
    """

    rows: Tensor
    columns: Tensor
    pairs: int
    first: int
    texts: int
    matches: Matches | None
    ranks: Ranks
    chunk_size: int

    def strips(self) -> Iterator[Strip]:
        """Yield strips of at most `chunk_size` rows, own images first."""
        for start in range(0, self.pairs, self.chunk_size):
            rows = slice(start, min(start + self.chunk_size, self.pairs))
            yield Strip(rows, len(self.columns), self.first + start)
        for start in range(self.pairs, len(self.rows), self.chunk_size):
            yield Strip(slice(start, min(start + self.chunk_size, len(self.rows))), self.texts, None)

    def matching(self, strip: Strip) -> Tensor | None:
        """Return (r, width) bool of what belongs together in a strip beside the pairs; None without ids."""
        if self.matches is None:
            return None
        found = self.matches.block(strip.rows, strip.width)
        if strip.own is not None:
            strip.diagonal(found).fill_(False)
        return found


def features_of(
    images: Tensor, texts: Tensor, *, extra_images: Tensor | None = None, extra_texts: Tensor | None = None,
    matches: Matches | None = None, chunk_size: int | None = None, ranks: Ranks = ALONE,
) -> Features:  # fmt: skip
    """Lay out the features of a batch, or of this rank's part of it, with the texts of all ranks.

    images, texts: (b, P) of matching pairs, b the same on all ranks. extra_images, extra_texts: (F, P), (E, P) or None.
    matches: ids of the images, extra ones behind, and of the texts likewise. chunk_size: rows of a strip; None chooses.
    Nothing is computed in less than float32.
    """
    wide = torch.float64 if images.dtype == torch.float64 else torch.float32
    pairs = len(images)
    empty = texts[:0]
    rows = torch.cat([images, empty if extra_images is None else extra_images]).to(wide)
    columns = torch.cat([texts, empty if extra_texts is None else extra_texts]).to(wide)
    columns = gather_columns(columns, ranks, pairs)
    chosen = max(1, _STRIP.get(rows.device.type, _STRIP_ELSEWHERE) // max(1, len(columns)))
    return Features(
        rows=rows, columns=columns, pairs=pairs, first=ranks.rank * pairs, texts=ranks.count * pairs,
        matches=None if matches is None else matches.gathered(ranks, pairs), ranks=ranks,
        chunk_size=chunk_size or chosen,
    )  # fmt: skip
