"""Hard negatives of a batch: of each row that has some, one caption and one picture, drawn by the step alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipcond.images.image_source import ImageSource
from clipcond.images.preprocess import Preprocess
from clipcond.train.data import Pairs
from clipcond.train.pixels import Pixels, preflight


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The hard negatives of a batch, in the order of its rows.

    text_rows, picture_rows: the position in the batch that each belongs to.
    """

    texts: Sequence[str] = ()
    text_rows: Sequence[int] = ()
    pictures: Sequence[ImageSource] = ()
    picture_rows: Sequence[int] = ()

    def of(self, rows: slice) -> Drawn:
        """Return those that belong to some positions of the batch."""
        texts, pictures = self.texts_of(rows), self.pictures_of(rows)
        return Drawn(
            texts=[self.texts[n] for n in texts], text_rows=[self.text_rows[n] for n in texts],
            pictures=[self.pictures[n] for n in pictures], picture_rows=[self.picture_rows[n] for n in pictures],
        )  # fmt: skip

    def texts_of(self, rows: slice) -> list[int]:
        """Return the numbers of the captions that belong to some positions."""
        return [n for n, row in enumerate(self.text_rows) if rows.start <= row < rows.stop]

    def pictures_of(self, rows: slice) -> list[int]:
        """Return the numbers of the pictures that belong to some positions."""
        return [n for n, row in enumerate(self.picture_rows) if rows.start <= row < rows.stop]


class HardNegatives:
    """The hard negatives of a run's pairs."""

    def __init__(self, pairs: Pairs, preprocess: Preprocess, *, cache_gib: float, seed: int) -> None:
        """Decode a sample of the pictures, so that bad ones fail before the first step. Raises DataError."""
        self._pairs, self._seed = pairs, seed
        sources = dict.fromkeys(image for each in pairs.relations for image in each.negative_images)
        self._numbers = {source: number for number, source in enumerate(sources)}
        pictures = Pairs(list(sources), [()] * len(sources), pairs.source)
        self._pixels = Pixels(preflight(pictures, preprocess), preprocess, cache_gib) if sources else None

    def draw(self, rows: np.ndarray, step: int) -> Drawn:
        """Return the hard negatives of (B,) rows of the pairs at a step."""
        if not self._pairs.relations:
            return Drawn()
        shares = np.random.default_rng([self._seed, 4, step]).random((len(rows), 2))
        texts: list[tuple[int, str]] = []
        pictures: list[tuple[int, ImageSource]] = []
        for at, (row, (one, other)) in enumerate(zip(rows, shares, strict=True)):
            known = self._pairs.relations[row]
            if known.negatives:
                texts.append((at, known.negatives[int(one * len(known.negatives))]))
            if known.negative_images:
                pictures.append((at, known.negative_images[int(other * len(known.negative_images))]))
        return Drawn(
            texts=[text for _, text in texts], text_rows=[at for at, _ in texts],
            pictures=[source for _, source in pictures], picture_rows=[at for at, _ in pictures],
        )  # fmt: skip

    def pixels(self, drawn: Drawn) -> np.ndarray | None:
        """Return the (F, H, W, 3) uint8 pixels of drawn pictures, None without any. Raises DataError."""
        if not drawn.pictures or self._pixels is None:
            return None
        return self._pixels[np.array([self._numbers[source] for source in drawn.pictures])]


def picture_key(source: ImageSource) -> str:
    """Return the name under which a picture is the same whoever names it."""
    return f"{os.path.abspath(source.path)}\0{source.name}"  # noqa: PTH100  (links are kept)
