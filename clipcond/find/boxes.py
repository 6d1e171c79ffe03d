"""From heat to boxes: arithmetic on maps of a picture, without a model. Boxes are left, top, right and bottom."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[float, float, float, float]
LEVEL = 0.6  # a box holds what is hotter than this share of the way from the map's median up to its peak
KEPT = 0.8  # a further peak counts that is as high as this share of the highest, above the median
OVERLAP = 0.5  # of two boxes with more intersection over union the weaker goes


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A place in a picture. score: of its hottest point, which is `peak`, (x, y)."""

    box: Box
    score: float
    peak: tuple[float, float]


def overlap(one: Box, other: Box) -> float:
    """Intersection over union, 0 for boxes that do not meet."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (_area(one) + _area(other) - width * height)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def strongest(regions: Sequence[Region], most: int) -> tuple[Region, ...]:
    """Return the best regions, best first, none of which overlaps a better one (non-maximum suppression)."""
    found: list[Region] = []
    for region in sorted(regions, key=lambda each: -each.score):
        if len(found) == most:
            break
        if all(overlap(region.box, better.box) <= OVERLAP for better in found):
            found.append(region)
    return tuple(found)


def regions_of(heat: NDArray[np.float32], *, floor: float | None = None) -> tuple[Region, ...]:
    """Return the regions around the peaks of a map, hottest first, in the map's own places.

    heat: (h, w).   floor: the heat of places that show nothing; by default the map's median.
    Each is what hangs together around a peak above LEVEL of its height over the floor. A map without a peak has none.
    """
    ground = float(np.median(heat)) if floor is None else floor
    left = np.ones(heat.shape, dtype=bool)
    found: list[Region] = []
    highest = float(heat.max())
    while left.any():
        top, at = _hottest(heat, left)
        if top <= ground or top - ground < KEPT * (highest - ground):
            break
        region = _around(heat >= ground + LEVEL * (top - ground), at)
        if not (region & ~left).any():  # else a shoulder of one that was found
            rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
            box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
            found.append(Region(box=box, score=top, peak=(at[1] + 0.5, at[0] + 0.5)))
        left &= ~region
    return tuple(found)


def _hottest(heat: NDArray[np.float32], left: NDArray[np.bool_]) -> tuple[float, tuple[int, int]]:
    at = int(np.where(left, heat, -np.inf).argmax())
    row, column = divmod(at, heat.shape[1])
    return float(heat[row, column]), (row, column)


def _around(mask: NDArray[np.bool_], at: tuple[int, int]) -> NDArray[np.bool_]:
    """The part of a mask that hangs together, by sides, with a place in it."""
    rows, columns = mask.shape
    region = np.zeros_like(mask)
    region[at] = True
    waiting = deque([at])
    while waiting:
        y, x = waiting.popleft()
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= near[0] < rows and 0 <= near[1] < columns and mask[near] and not region[near]:
                region[near] = True
                waiting.append(near)
    return region


def scaled(region: Region, across: float, down: float) -> Region:
    """The region in other units, by what one place of the map is wide and high in them."""
    left, top, right, bottom = region.box
    x, y = region.peak
    return Region(
        box=(left * across, top * down, right * across, bottom * down),
        score=region.score,
        peak=(x * across, y * down),
    )


def spread(
    maps: Sequence[NDArray[np.float32]], parts: Sequence[Box], size: tuple[int, int], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Lay the maps of parts of a picture over the whole of it.

    maps: (L, h, w) of each part.   parts: where each lies in the picture, in its pixels; it may reach beyond.
    size: width and height of the picture.   shape: rows and columns of the result.
    Returns (L, rows, columns) float32, read between the places of a map linearly; where parts overlap, the one counts more
    whose edge is farther.
    """
    rows, columns = shape
    x = (np.arange(columns) + 0.5) * size[0] / columns
    y = (np.arange(rows) + 0.5) * size[1] / rows
    total = np.zeros((len(maps[0]), rows, columns))
    weights = np.zeros(shape)
    for one, (left, top, right, bottom) in zip(maps, parts, strict=True):
        across = _reading((x - left) / (right - left), one.shape[2])
        down = _reading((y - top) / (bottom - top), one.shape[1])
        weight = np.outer(_tent((y - top) / (bottom - top)), _tent((x - left) / (right - left)))
        total += weight * (down @ one.astype(np.float64) @ across.T)
        weights += weight
    found: NDArray[np.float32] = (total / weights).astype(np.float32)
    return found


def _tent(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weight of a point by its distance from the nearer edge of a part; next to none outside, but never nothing."""
    return np.maximum(np.minimum(share, 1 - share), 1e-6)


def _reading(share: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(points, count) weights with which points between 0 and 1 read a row of `count` places, linearly between centres."""
    at = np.clip(share * count - 0.5, 0, count - 1)
    distance = np.abs(at[:, None] - np.arange(count))
    return np.maximum(0.0, 1.0 - distance)
