"""Regions of a picture with prompts of their own: where they are, and the share that each has of every place. No torch."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from clipcond.errors import ConfigError, DataError
from clipcond.images.decode import open_image
from clipcond.images.places import CELLS
from clipcond.wording import visible

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Shares = NDArray[np.float32]

MASK_SIZE = 128  # pixels of a mask's longer side, at most: as fine as the latents of a picture of 1024
_FINER = 8  # places are laid out so many times finer than the latents
_DATA = "data:image/png;base64,"
_LONGEST_DATA = 1 << 20  # characters
_BOX = "left, top, right, bottom as shares of the picture from 0 to 1"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Region:
    """A prompt for one place of the picture, which is one of `cell`, `box` and `mask`.

    cell: of a grid, by name (`top left`, `center`) in three rows of three, or as (row, column), from 1.   grid: (rows,
    columns).   box: (left, top, right, bottom), shares of the picture's width and height.   mask: a picture, its file, or an
    array (h, w) of numbers from 0 to 255, stretched over the picture: white is the region, and it is read at 128 pixels.
    weight: 1 draws the region's prompt there, 0 the base prompt, more pushes away from it.   feather: width of the soft
    edge, as a share of the picture's shorter side.
    Raises ConfigError, naming the prompt, for a place that is none, outside of the picture or empty, and for numbers out of
    range; ResourceMissing and ImageError for a mask's file.
    """

    prompt: str
    cell: str | tuple[int, int] | None = None
    box: tuple[float, float, float, float] | None = None
    mask: NDArray[np.uint8] | Image.Image | str | Path | None = field(default=None, repr=False)
    grid: tuple[int, int] = (3, 3)
    weight: float = 1.0
    feather: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise ConfigError(f"the prompt of a region is a {type(self.prompt).__name__}, expected text")
        places = [name for name in ("cell", "box", "mask") if getattr(self, name) is not None]
        if len(places) != 1:
            given = "no place" if not places else " and ".join(places)
            raise ConfigError(f"{self._name} has {given}, expected one of cell, box and mask")
        if self.mask is not None:
            object.__setattr__(self, "mask", _mask(self.mask, self._name))
        else:
            object.__setattr__(self, "box", _box_of_cell(self) if self.box is None else _checked_box(self))
        if not _is_number(self.weight) or self.weight < 0:
            raise ConfigError(f"{self._name} has weight {self.weight!r}, expected 0 or more, such as 1")
        if not _is_number(self.feather) or not 0 <= self.feather <= 1:
            raise ConfigError(f"{self._name} has feather {self.feather!r}, expected a share of the picture from 0 to 1")

    @property
    def _name(self) -> str:
        return f"region {visible(_short(self.prompt))!r}"

    def shares(self, height: int, width: int) -> Shares:
        """(height, width), from 0 to 1: how much of each place is the region's, its soft edge included."""
        tall, wide = height * _FINER, width * _FINER
        if self.box is not None:
            left, top, right, bottom = self.box
            fine = np.outer(_covered(top, bottom, tall), _covered(left, right, wide))
        else:
            assert isinstance(self.mask, np.ndarray)
            picture = Image.fromarray(self.mask.astype(np.float32) / 255, mode="F")
            fine = np.asarray(picture.resize((wide, tall), Image.Resampling.BOX), dtype=np.float64)
        if self.feather:
            fine = _blurred(fine, round(self.feather * min(tall, wide)))
        whole: Shares = fine.reshape(height, _FINER, width, _FINER).mean(axis=(1, 3)).astype(np.float32)
        return whole

    def to_document(self) -> dict[str, Any]:
        """Return what `region_of_document` makes the same region of."""
        document: dict[str, Any] = {"prompt": self.prompt}
        if self.cell is not None:
            document["cell"] = self.cell if isinstance(self.cell, str) else list(self.cell)
        elif self.box is not None:
            document["box"] = list(self.box)
        if isinstance(self.mask, np.ndarray):
            document["mask"] = _to_data(self.mask)
        usual = {"grid": (3, 3), "weight": 1.0, "feather": 0.0}
        given = {name: getattr(self, name) for name in usual if getattr(self, name) != usual[name]}
        return document | {name: list(each) if isinstance(each, tuple) else each for name, each in given.items()}


def region_of_document(document: object, number: int, folder: Path) -> Region:
    """Read one region of a JSON file. folder: where the files of masks are looked for.

    Raises DataError for what is no region, and what Region raises.
    """
    keys = ("prompt", "cell", "box", "mask", "grid", "weight", "feather")
    if not isinstance(document, dict):
        raise DataError(f"region {number} is no object, expected one with prompt and cell, box or mask")
    if unknown := next((key for key in document if key not in keys), None):
        raise DataError(
            f"region {number} has {visible(str(unknown))!r}{_near(str(unknown), keys)}; known are {', '.join(keys)}"
        )
    if "prompt" not in document:
        raise DataError(f"region {number} has no prompt")
    known: dict[str, Any] = {key: tuple(each) if isinstance(each, list) else each for key, each in document.items()}
    mask = known.get("mask")
    if isinstance(mask, str):
        known["mask"] = _of_data(mask, number) if mask.startswith("data:") else folder / mask
    elif mask is not None:
        raise DataError(f"region {number} has a mask that is no text, expected the name of a picture")
    return Region(**known)


class Areas:
    """The share of every place that the parts of a composition have: the base's parts what the regions leave them."""

    def __init__(self, regions: Sequence[Region], owners: Sequence[int]) -> None:
        """owners: of each part the number of its region, −1 for the base."""
        self._regions, self._owners = tuple(regions), tuple(owners)
        self.at: Callable[[int, int], Tensor] = lru_cache(maxsize=4)(self._at)

    @property
    def parts(self) -> int:
        """The number of parts."""
        return len(self._owners)

    def _at(self, height: int, width: int) -> Tensor:
        """(M, height, width) float32, on the CPU; where regions overlap they share the place.

        Raises ConfigError for a region that is too small to be in a picture of this size.
        """
        import torch

        shares = np.stack([each.shares(height, width) for each in self._regions])
        for region, own in zip(self._regions, shares, strict=True):
            if own.max() < _LEAST:
                raise ConfigError(
                    f"{region._name} covers {own.max():.1%} of one of the picture's {height}×{width} latent positions at most; "
                    "make it larger"
                )
        shares /= np.maximum(shares.sum(axis=0), 1)
        weights = np.array([each.weight for each in self._regions], dtype=np.float32)
        base = 1 - (weights[:, None, None] * shares).sum(axis=0)
        return torch.from_numpy(np.stack([base if owner < 0 else shares[owner] for owner in self._owners]))


_LEAST = 0.02  # of a latent position that a region must cover somewhere


def _checked_box(region: Region) -> tuple[float, float, float, float]:
    box = region.box
    if not isinstance(box, (tuple, list)) or len(box) != 4 or not all(map(_is_number, box)):
        raise ConfigError(f"{region._name} has box {box!r}, expected {_BOX}")
    left, top, right, bottom = map(float, box)
    if min(left, top) < 0 or max(right, bottom) > 1 or max(left, top) >= 1 or min(right, bottom) <= 0:
        raise ConfigError(f"{region._name} has box {tuple(box)}, which is not in the picture; expected {_BOX}")
    if left >= right or top >= bottom:
        raise ConfigError(f"{region._name} has box {tuple(box)}, which is empty; expected {_BOX}")
    return left, top, right, bottom


def _box_of_cell(region: Region) -> tuple[float, float, float, float]:
    name, cell, grid = region._name, region.cell, region.grid
    if not _is_pair(grid) or min(grid) < 1:
        raise ConfigError(f"{name} has grid {grid!r}, expected (rows, columns), such as (3, 3)")
    if isinstance(cell, str):
        words = " ".join(cell.lower().replace("-", " ").replace("_", " ").split())
        words = {"middle center": "center", "middle": "center"}.get(words, words)
        if words not in CELLS or tuple(grid) != (3, 3):
            near = _near(words, CELLS) if tuple(grid) == (3, 3) else ", which a grid of three by three has"
            raise ConfigError(
                f"{name} has cell {visible(cell)!r}{near}; expected {', '.join(CELLS)}, or (row, column) from 1"
            )
        row, column = divmod(CELLS.index(words), 3)
    else:
        if not _is_pair(cell) or not all(1 <= at <= most for at, most in zip(cell or (), grid, strict=True)):
            raise ConfigError(f"{name} has cell {cell!r}, expected (row, column) from (1, 1) to {tuple(grid)}")
        assert cell is not None
        row, column = cell[0] - 1, cell[1] - 1
    rows, columns = grid
    return column / columns, row / rows, (column + 1) / columns, (row + 1) / rows


def _mask(mask: Any, name: str) -> NDArray[np.uint8]:
    """(h, w) from 0 to 255, of 128 pixels at most. Raises ConfigError for one that is black all over."""
    if isinstance(mask, (str, Path)):
        path = Path(mask)
        with open_image(path) as opened:
            picture = _lightness(opened)
    elif isinstance(mask, Image.Image):
        picture = _lightness(mask)
    else:
        array = np.asarray(mask)
        if (
            array.ndim != 2
            or not array.size
            or not np.issubdtype(array.dtype, np.number)
            or not np.isfinite(array).all()
        ):
            raise ConfigError(
                f"{name} has a mask of shape {array.shape}, expected (height, width) of numbers from 0 to 255"
            )
        picture = Image.fromarray(np.clip(array, 0, 255).astype(np.uint8))
    if max(picture.size) > MASK_SIZE:
        scale = MASK_SIZE / max(picture.size)
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.BOX)
    read = np.asarray(picture, dtype=np.uint8).copy()
    if not read.any():
        raise ConfigError(f"{name} has an empty mask: it is black all over; paint the region white")
    return read


def _lightness(picture: Image.Image) -> Image.Image:
    """A picture in grey; what is transparent is black."""
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
    return picture.convert("L")


def _to_data(mask: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG", optimize=True)
    return _DATA + base64.b64encode(stream.getvalue()).decode()


def _of_data(text: str, number: int) -> NDArray[np.uint8]:
    try:
        if not text.startswith(_DATA) or len(text) > _LONGEST_DATA:
            raise ValueError
        with Image.open(io.BytesIO(base64.b64decode(text[len(_DATA) :], validate=True)), formats=["PNG"]) as picture:
            if max(picture.size) > MASK_SIZE:
                raise ValueError
            return np.asarray(picture.convert("L"))
    except (ValueError, OSError, SyntaxError, binascii.Error):
        raise DataError(f"region {number} has a damaged mask; expected the name of a picture") from None


def _covered(start: float, end: float, count: int) -> NDArray[np.float64]:
    """(count), how much of each of so many equal parts of 0…1 lies between start and end."""
    edges = np.arange(count + 1)
    covered: NDArray[np.float64] = np.clip(end * count, edges[:-1], edges[1:]) - np.clip(
        start * count, edges[:-1], edges[1:]
    )
    return covered


def _blurred(fine: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """A mean over squares of a width, an odd one; the picture's own edges stay as they are."""
    half = width // 2
    for axis in (0, 1) if half else ():
        pads = [(half + 1, half) if each == axis else (0, 0) for each in (0, 1)]
        sums = np.cumsum(np.pad(fine, pads, mode="edge"), axis=axis)
        count = sums.shape[axis]
        ahead = np.take(sums, range(2 * half + 1, count), axis=axis)
        fine = (ahead - np.take(sums, range(count - 2 * half - 1), axis=axis)) / (2 * half + 1)
    return fine


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(each, int) and not isinstance(each, bool) for each in value)
    )


def _near(given: str, names: Collection[str]) -> str:
    near = get_close_matches(given, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
