"""Pictures to the pixels that a model's own config asks for: resize, then crop or pad, on 8-bit RGB, by Pillow.

Normalisation by mean and deviation is part of the batch that goes to the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from clipcond.errors import ModelError
from clipcond.images.colour import to_rgb

Policy = Literal["shortest", "longest", "squash"]


_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "random": Image.Resampling.BICUBIC,  # what open_clip scores with where it trained with a random filter
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """How a model wants its pictures. Policies: `shortest` crops the centre, `longest` pads, `squash` distorts."""

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    policy: Policy = "shortest"
    fill: int = 0
    short: int | None = None  # short side before the crop, where that is not the crop itself

    def __post_init__(self) -> None:
        if self.interpolation not in _FILTERS:
            raise ModelError(f"unknown interpolation {self.interpolation!r}; expected one of {', '.join(_FILTERS)}")
        if self.policy not in ("shortest", "longest", "squash"):
            raise ModelError(f"unknown resize mode {self.policy!r}; expected shortest, longest or squash")
        if min(self.height, self.width) < 1:
            raise ModelError(f"a picture size of {self.width}×{self.height} makes no sense")

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any]) -> Preprocess:
        """From open_clip's `preprocess_cfg` (`size`, `mean`, `std`, `interpolation`, `resize_mode`, `fill_color`).

        Raises ModelError where size, mean or std is missing or of the wrong shape.
        """
        height, width = _pair(config.get("size"), "preprocess_cfg size")
        return cls(
            height=height,
            width=width,
            mean=_triple(config.get("mean"), "preprocess_cfg mean"),
            std=_triple(config.get("std"), "preprocess_cfg std"),
            interpolation=config.get("interpolation") or "bicubic",
            policy=config.get("resize_mode") or "shortest",
            fill=int(config.get("fill_color") or 0),
        )

    @classmethod
    def from_processor(cls, config: Mapping[str, Any]) -> Preprocess:
        """From transformers' `preprocessor_config.json`. Raises ModelError for steps that clipcond does not do."""
        for step in ("do_resize", "do_rescale", "do_normalize"):
            if not config.get(step, True):
                raise ModelError(f"the image processor sets {step} to false, which clipcond does not support")
        if abs(float(config.get("rescale_factor", 1 / 255)) - 1 / 255) > 1e-9:
            raise ModelError(f"the image processor rescales by {config['rescale_factor']}; expected 1/255")
        size = config.get("size")
        short = size.get("shortest_edge") if isinstance(size, Mapping) else size if isinstance(size, int) else None
        crops = config.get("do_center_crop", True) and short is not None
        wanted = config.get("crop_size") or short if crops else size
        if not crops and short is not None:
            raise ModelError("the image processor keeps the aspect and does not crop; expected pictures of one size")
        height, width = _pair(wanted, "image processor size")
        try:
            name = Image.Resampling(config.get("resample", Image.Resampling.BICUBIC)).name.lower()
        except ValueError:
            raise ModelError(f"the image processor names an unknown filter: {config.get('resample')!r}") from None
        return cls(
            height=height,
            width=width,
            mean=_triple(config.get("image_mean"), "image_mean"),
            std=_triple(config.get("image_std"), "image_std"),
            interpolation=name,
            policy="shortest" if crops else "squash",
            short=short if crops else None,
        )

    def pixels(self, image: Image.Image) -> np.ndarray:
        """The picture as the model sees it, before normalisation: (height, width, 3) uint8."""
        image = to_rgb(image)
        size = self.resized(*image.size)
        if image.size != size:
            image = image.resize(size, _FILTERS[self.interpolation])
        left, top = (_offset(image.size[axis], (self.width, self.height)[axis]) for axis in (0, 1))
        if (left, top) != (0, 0) or image.size != (self.width, self.height):
            canvas = Image.new("RGB", (self.width, self.height), (self.fill,) * 3)
            canvas.paste(image, (-left, -top))
            image = canvas
        return np.array(image)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture after the resize, before crop or pad."""
        if self.policy == "squash":
            return self.width, self.height
        if self.policy == "shortest" and (self.short or self.height == self.width):
            short = self.short or self.height
            return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
        pick = max if self.policy == "longest" else min
        ratio = pick(height / self.height, width / self.width)
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def share_seen(self, width: int, height: int) -> float:
        """How much of a picture of this size the model sees: 1 except where a crop cuts."""
        after = self.resized(width, height)
        return min(1.0, self.width / after[0]) * min(1.0, self.height / after[1])


def _offset(have: int, want: int) -> int:
    """Where a crop starts (positive) or how far a pad shifts (negative)."""
    return round((have - want) / 2) if have >= want else -((want - have) // 2)


def _pair(size: object, what: str) -> tuple[int, int]:
    """Height and width from an int, a pair, or a mapping with those keys."""
    if isinstance(size, Mapping):
        size = [size.get("height"), size.get("width")]
    both = [size, size] if isinstance(size, int) else list(size) if isinstance(size, (list, tuple)) else []
    if len(both) != 2 or not all(isinstance(side, int) for side in both):
        raise ModelError(f"{what} is {size!r}; expected a number or height and width")
    return both[0], both[1]


def _triple(values: object, what: str) -> tuple[float, float, float]:
    """Three numbers, from three or from one for all."""
    if isinstance(values, (int, float)):
        values = [values] * 3
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        raise ModelError(f"{what} is {values!r}; expected three numbers")
    return float(values[0]), float(values[1]), float(values[2])
