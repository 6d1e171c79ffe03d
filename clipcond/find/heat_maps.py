"""Heat maps of labels over pictures, by a dual encoder: from the vectors of patches, or from windows looked at alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from clipcond.encode.patch_tower import PatchTower, Way
from clipcond.find.boxes import Box, spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.encode.image import ImageTower
    from clipcond.images.preprocess import Preprocess

FINE = 64  # places along the shorter side of a map
_LONGEST = 16 * FINE  # along the longer one
_WINDOWS = (4, 2)  # parts of the longer side that windows are long
_LARGEST = 768  # pixels of the longer side of a picture from which windows are cut


class HeatMaps(Protocol):
    """Heat of labels over a picture."""

    def of(self, image: Image.Image) -> NDArray[np.float32]:
        """(L, rows, columns) cosines of each label with each place of a picture, which is upright and in RGB."""


def map_shape(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of the map of a picture."""
    unit = min(width, height) / FINE
    rows, columns = (min(_LONGEST, max(1, round(side / unit))) for side in (height, width))
    return rows, columns


def whole_view(preprocess: Preprocess) -> Preprocess:
    """The preprocessing that shows all of a picture: in tiles, where the model's own would crop."""
    return preprocess.with_view("tiles") if preprocess.policy == "shortest" else preprocess


class PatchMaps:
    """Cosines of labels with patches."""

    def __init__(
        self, patches: PatchTower, tower: ImageTower, vectors: NDArray[np.float64], way: Way = "surgery", rows: int = 32
    ) -> None:
        """vectors: (L, P) unit rows of labels.   rows: tiles in a forward."""
        self._patches, self._vectors, self._way, self._rows = patches, vectors.astype(np.float32), way, rows
        self._preprocess = whole_view(tower.preprocess)

    def of(self, image: Image.Image) -> NDArray[np.float32]:
        """(L, rows, columns) float32."""
        crops = self._preprocess.crops(image)
        parts = self._preprocess.parts(*image.size)
        found = [
            self._patches.embed_pixels(crops[at : at + self._rows], self._way).numpy()
            for at in range(0, len(crops), self._rows)
        ]
        maps = [np.moveaxis(tile @ self._vectors.T, -1, 0) for tile in np.concatenate(found)]
        return spread(maps, parts, image.size, map_shape(*image.size))


class WindowMaps:
    """Cosines of labels with windows, each on an empty ground; a place's heat is the mean of the windows that show it.

    For any image encoder, at the price of one forward for each window.
    """

    def __init__(self, tower: ImageTower, vectors: NDArray[np.float64], rows: int = 32) -> None:
        """vectors: (L, P) unit rows of labels.   rows: windows in a forward."""
        self._tower, self._vectors, self._rows = tower, vectors.astype(np.float32), tower.rows_at_once(rows)

    def of(self, image: Image.Image) -> NDArray[np.float32]:
        """(L, rows, columns) float32."""
        width, height = image.size
        parts = [
            (max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom))
            for left, top, right, bottom in whole_view(self._tower.preprocess).parts(width, height)
        ]
        maps = [self._of_part(_cut(image, part)) for part in parts]
        return spread(maps, parts, image.size, map_shape(width, height))

    def _of_part(self, picture: Image.Image) -> NDArray[np.float32]:
        shape = map_shape(*picture.size)
        total = np.zeros((len(self._vectors), *shape), dtype=np.float32)
        for parts in _WINDOWS:
            boxes = windows_of(*picture.size, parts)
            heat, count = np.zeros_like(total), np.zeros(shape, dtype=np.float32)
            for box, cosines in zip(boxes, self._cosines(picture, boxes), strict=True):
                rows, columns = _places(box, picture.size, shape)
                heat[:, rows, columns] += cosines[:, None, None]
                count[rows, columns] += 1
            total += heat / count
        mean: NDArray[np.float32] = total / np.float32(len(_WINDOWS))
        return mean

    def _cosines(self, picture: Image.Image, boxes: Sequence[tuple[int, int, int, int]]) -> NDArray[np.float32]:
        """(windows, L)."""
        ground, prepare = ground_of(picture), self._tower.preprocess.pixels
        found = [
            self._tower.embed_pixels(
                np.stack([prepare(alone(picture, box, ground)) for box in boxes[at : at + self._rows]]), self._rows
            ).numpy()
            for at in range(0, len(boxes), self._rows)
        ]
        cosines: NDArray[np.float32] = np.concatenate(found) @ self._vectors.T
        return cosines


def _cut(image: Image.Image, part: Box) -> Image.Image:
    """A part of a picture, no larger than windows need."""
    left, top, right, bottom = (round(side) for side in part)
    cut = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    cut.thumbnail((_LARGEST, _LARGEST), Image.Resampling.BICUBIC)
    return cut


def windows_of(width: int, height: int, parts: int) -> list[tuple[int, int, int, int]]:
    """Square windows all over a picture, `parts` of which are as long as its longer side, each half over the next."""
    side = math.ceil(max(width, height) / parts)
    across, down = (_starts(length, side) for length in (width, height))
    return [(x, y, min(x + side, width), min(y + side, height)) for y in down for x in across]


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    count = math.ceil((length - side) / (side / 2)) + 1
    return [round(number * (length - side) / (count - 1)) for number in range(count)]


def ground_of(picture: Image.Image) -> tuple[int, int, int]:
    """The median colour of a picture's frame."""
    pixels = np.asarray(picture)
    frame = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(frame, axis=0).astype(int)
    return int(red), int(green), int(blue)


def alone(picture: Image.Image, box: tuple[int, int, int, int], ground: tuple[int, int, int]) -> Image.Image:
    """A picture of the same size that shows one window in its place, and the ground elsewhere."""
    empty = Image.new("RGB", picture.size, ground)
    empty.paste(picture.crop(box), box[:2])
    return empty


def _places(box: Box, size: tuple[int, int], shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the map that a window covers, one of each at least."""
    (rows, columns), (width, height) = shape, size
    left, right = (round(each * columns / width) for each in (box[0], box[2]))
    top, bottom = (round(each * rows / height) for each in (box[1], box[3]))
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))
