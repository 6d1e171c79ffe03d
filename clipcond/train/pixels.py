"""Pictures of pairs as a model takes them: decoded, prepared, and kept where they fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from clipcond.errors import DataError, ImageError
from clipcond.images.decode import decoded, workers
from clipcond.images.image_source import ImageSource
from clipcond.images.preprocess import Preprocess
from clipcond.train.data import Pairs
from clipcond.train.rows import UNREADABLE, BadRows, RowError


def prepare(source: ImageSource, preprocess: Preprocess) -> np.ndarray:
    """Return the image's pixels as the model takes them, (H, W, 3) uint8. Raises DataError."""
    try:
        with source.stream() as stream, decoded(stream, name=str(source)) as image:
            return preprocess.pixels(image)
    except ImageError as error:
        raise RowError(f"cannot decode {error}", UNREADABLE) from error


def prepare_all(sources: Sequence[ImageSource], preprocess: Preprocess) -> np.ndarray:
    """Return the pixels of B images, (B, H, W, 3) uint8, prepared in threads: of each, its pixels alone are kept."""
    with ThreadPoolExecutor(workers()) as pool:
        return np.stack(list(pool.map(lambda source: prepare(source, preprocess), sources)))


class Pixels:
    """The pixels of all images of `pairs`, decoded when first asked for and kept where they fit.

    Keeping takes N·H·W·3 bytes; above `cache_gib` nothing is kept. Memory is only touched as images come in.
    """

    def __init__(self, pairs: Pairs, preprocess: Preprocess, cache_gib: float) -> None:
        self.pairs, self.preprocess = pairs, preprocess
        shape = (len(pairs), preprocess.height, preprocess.width, 3)
        self._kept = np.empty(shape, np.uint8) if math.prod(shape) <= cache_gib * 2**30 else None
        self._known = np.zeros(len(pairs), bool)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(B,) row numbers to (B, H, W, 3) uint8. Raises DataError for an image that cannot be decoded."""
        if self._kept is None:
            return np.stack([prepare(self.pairs.images[row], self.preprocess) for row in rows])
        for row in rows[~self._known[rows]]:
            self._kept[row] = prepare(self.pairs.images[row], self.preprocess)
            self._known[row] = True
        pixels: np.ndarray = self._kept[rows]
        return pixels

    def at(self, step: int, rows: np.ndarray) -> np.ndarray:
        """Return the pixels of some rows, the same at every step."""
        return self[rows]


def preflight(pairs: Pairs, preprocess: Preprocess, *, most: int = 500, max_bad_rows: int = 0) -> Pairs:
    """Decode `most` evenly spread images, or all, so that bad data fails before the first step.

    Returns the pairs without up to `max_bad_rows` images that cannot be decoded, rows left out before counted in.
    Raises DataError.
    """
    bad = BadRows(max_bad_rows)
    bad.reasons.extend(pairs.left_out)
    bad.kinds.extend(pairs.faults)
    unreadable: set[int] = set()
    for row in pairs.sample(most):
        try:
            prepare(pairs.images[row], preprocess)
        except DataError as error:
            bad.leave_out(error)
            unreadable.add(row)
    if not unreadable:
        return pairs
    rest = pairs.take(row for row in range(len(pairs)) if row not in unreadable)
    return replace(rest, left_out=tuple(bad.reasons), faults=tuple(bad.kinds))
