"""Pictures in their own aspect, as a grid of patches: SigLIP 2's NaFlex models read up to a number of them.

All pictures become arrays of one size, so that they can be stacked: patch below patch, row by row of the grid, behind a
header of one patch that carries rows and columns in bits, black or white.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from clipcond.errors import ModelError
from clipcond.images.colour import flatten, to_srgb
from clipcond.images.preprocess import FILTERS, Preprocess, View

HEADER_BITS = 16  # for rows, and as many for columns
_SEARCHED_TO = 1e-5  # of the scale, as in the library
_MOST = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchPreprocess(Preprocess):
    """The patches that a model reads. patch: side of one, in pixels.   most: how many there are at most, padding included."""

    patch: int
    most: int

    def __post_init__(self) -> None:
        if self.interpolation not in FILTERS:
            raise ModelError(f"unknown interpolation {self.interpolation!r}; expected one of {', '.join(FILTERS)}")
        if not 1 <= self.most <= _MOST or not 6 <= self.patch <= 256:
            raise ModelError(
                f"{self.most} patches of {self.patch}×{self.patch} make no sense; expected 1 to {_MOST} of 6 to 256"
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ModelError(f"mean {self.mean} and std {self.std}; expected finite numbers and std above 0")

    @classmethod
    def from_settings(cls, config: Mapping[str, Any], patch: int) -> PatchPreprocess:
        """From the settings of transformers' Siglip2ImageProcessor; what they leave out is as there. Raises ModelError."""
        most, side = config.get("max_num_patches") or 256, config.get("patch_size") or 16
        if not isinstance(most, int) or side != patch:
            raise ModelError(
                f"the image processor makes {most!r} patches of {side!r}; the model reads patches of {patch}"
            )
        plain = Preprocess.from_processor(
            {
                **{name: value for name, value in config.items() if name not in ("size", "crop_size")},
                "image_processor_type": "SiglipImageProcessor",
                "resample": config.get("resample", Image.Resampling.BILINEAR),
                "size": {"height": patch, "width": patch},
            }
        )
        return cls(
            height=(most + 1) * patch,
            width=patch,
            mean=plain.mean,
            std=plain.std,
            interpolation=plain.interpolation,
            policy="squash",
            patch=patch,
            most=most,
        )

    def with_view(self, view: View) -> PatchPreprocess:
        """Raise ModelError: nothing of a picture is cut, so that there is nothing to see otherwise."""
        raise ModelError(
            f"the model reads whole pictures in their own aspect; the view {view!r} is for those that crop"
        )

    @property
    def shrink_to(self) -> int | None:
        """None: all sides of a JPEG are wanted, as its size decides the grid."""
        return None

    def pixels(self, image: Image.Image) -> np.ndarray:
        """The header and the patches of a picture below one another: ((most + 1) · patch, patch, 3) uint8."""
        rows, columns = self.grid(*image.size)
        profile, side = image.info.get("icc_profile"), self.patch
        size = (columns * side, rows * side)
        seen = np.asarray(to_srgb(flatten(image).resize(size, FILTERS[self.interpolation]), profile))
        patches = seen.reshape(rows, side, columns, side, 3).transpose(0, 2, 1, 3, 4).reshape(-1, side, 3)
        whole = np.zeros((self.height, self.width, 3), dtype=np.uint8)
        bits = [number >> bit & 1 for number in (rows, columns) for bit in range(HEADER_BITS)]
        whole[:side].reshape(-1, 3)[: len(bits)] = np.array(bits, dtype=np.uint8)[:, None] * 255
        whole[side : side + len(patches)] = patches
        return whole

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of patches of a picture: the largest scale at which there are not too many."""
        low, high = _SEARCHED_TO / 10, 100.0
        while high - low >= _SEARCHED_TO:
            middle = (low + high) / 2
            rows, columns = self._at(middle, height), self._at(middle, width)
            low, high = (middle, high) if rows * columns <= self.most else (low, middle)
        return self._at(low, height), self._at(low, width)

    def _at(self, scale: float, side: int) -> int:
        return max(1, math.ceil(side * scale / self.patch))

    def parts(self, width: int, height: int) -> tuple[tuple[float, float, float, float], ...]:
        """The part of a picture that the model sees: all."""
        return ((0.0, 0.0, float(width), float(height)),)

    def described(self) -> str:
        """One short text for people: patches and filter."""
        return f"to {self.most} patches of {self.patch}×{self.patch}, {self.interpolation}"

    def share_seen(self, width: int, height: int) -> float:
        """Return how much of a picture of this size the model sees: all."""
        return 1.0
