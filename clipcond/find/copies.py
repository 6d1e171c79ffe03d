"""Pictures that are there more than once: the same bytes, or nearly the same to a model, and which of a group to keep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from clipcond.encode.content_key import file_key
from clipcond.find.gallery import Gallery
from clipcond.score.duplicates import DUPLICATE_COSINE, Candidate, best_of_group, near_duplicates

Kind = Literal["exact", "near"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A picture of a group. kind: `exact`, the bytes of the one kept, or `near`.   cosine: with the one kept."""

    path: Path
    kind: Kind
    cosine: float
    width: int
    height: int

    def to_json(self) -> dict[str, object]:
        return {
            "path": str(self.path), "kind": self.kind, "cosine": round(self.cosine, 6),
            "width": self.width, "height": self.height,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateGroup:
    """Pictures that are alike: the one to keep and the others, by path."""

    keep: Path
    copies: tuple[Copy, ...]

    def to_json(self) -> dict[str, object]:
        """The row of this group."""
        return {"keep": str(self.keep), "copies": [each.to_json() for each in self.copies]}


def find_duplicates(pictures: Gallery, *, threshold: float = DUPLICATE_COSINE) -> tuple[DuplicateGroup, ...]:
    """Return groups of alike pictures in the order of their first files.

    The one to keep has the most pixels; of those the oldest, which is the original; then the first path. threshold: the
    least cosine of a pair; a group is a chain of such pairs. Raises ConfigError for a threshold outside of -1 to 1.
    """
    vectors = pictures.vectors.double().cpu().numpy()
    return tuple(_group(pictures, vectors, rows) for rows in near_duplicates(vectors, threshold=threshold))


def _group(pictures: Gallery, vectors: np.ndarray, rows: tuple[int, ...]) -> DuplicateGroup:
    of = [pictures.pictures[row] for row in rows]
    keys = [file_key(picture.path) for picture in of]
    best = best_of_group([
        Candidate(path=str(each.path), score=0.0, pixels=each.width * each.height, modified=each.modified) for each in of
    ])  # fmt: skip
    key = keys[best]
    copies = [
        Copy(
            path=picture.path, kind="exact" if key and keys[n] and key[0] == keys[n][0] else "near",  # type: ignore[index]
            cosine=float(vectors[rows[n]] @ vectors[rows[best]]), width=picture.width, height=picture.height,
        )
        for n, picture in enumerate(of)
        if n != best
    ]  # fmt: skip
    return DuplicateGroup(keep=of[best].path, copies=tuple(sorted(copies, key=lambda copy: str(copy.path))))
