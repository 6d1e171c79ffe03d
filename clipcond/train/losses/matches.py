"""Images and texts of a batch that belong together although they are not one pair, told by equal ids."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from clipcond.train.ranks import Ranks

POSITIVES = ("mask", "count")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """Ids of R images and C texts: image i and text j belong together where `images[i, k] == texts[j, k]` for any k.

    images: (R, K), texts: (C, K) int64, K kinds of id (captions, image, group). What has no id of a kind carries one
    that the other side never has. Memory is O((R + C) K): no matrix of pairs.
    """

    images: Tensor
    texts: Tensor

    def block(self, rows: slice, columns: int) -> Tensor:
        """Return (r, columns) bool: which of some images belong to which of the first texts."""
        images, texts = self.images[rows], self.texts[:columns]
        found = images[:, :1] == texts[:, 0]
        for kind in range(1, images.shape[1]):
            found |= images[:, kind : kind + 1] == texts[:, kind]
        return found

    def gathered(self, ranks: Ranks, pairs: int) -> Matches:
        """Return own images against the texts of all ranks, the first `pairs` of each before all that follow them."""
        if ranks.count == 1:
            return self
        return Matches(images=self.images, texts=gather_columns(self.texts, ranks, pairs))


def gather_columns(rows: Tensor, ranks: Ranks, pairs: int) -> Tensor:
    """Join rows of all ranks: those of pairs, the first `pairs` of each rank, then the extra ones."""
    from torch import cat

    return cat([ranks.gather(rows[:pairs]), ranks.gather(rows[pairs:])]) if ranks.count > 1 else rows
