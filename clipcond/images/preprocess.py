"""Pictures to the pixels that a model's own config asks for: resize, then crop or pad, on 8-bit levels, by Pillow.

Normalisation by mean and deviation is part of the batch that goes to the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from clipcond.errors import ModelError
from clipcond.images.colour import flatten, to_srgb

VERSION = 2  # of what becomes of a picture's pixels, decoding included: raise it when any of them changes
LARGEST_SIDE = 4096  # of a model's input: the largest that are published have 1024
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_LARGEST_RESIZE = 1 << 24  # pixels of a picture between resize and crop
_STATED = (
    "do_center_crop",
    "image_mean",
    "image_std",
    "resample",
    "size",
)  # where the class's own defaults are unknown
_HALF = (0.5, 0.5, 0.5)
_SQUASHED = {"do_center_crop": False, "image_mean": _HALF, "image_std": _HALF, "resample": 3, "square": True}
# what image processors of transformers take where their file is silent, by the beginning of their names
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "CLIP": {},
    "ChineseCLIP": {},
    "Siglip": {**_SQUASHED, "size": {"height": 224, "width": 224}},
    "Blip": {**_SQUASHED, "size": {"height": 384, "width": 384}, "image_mean": OPENAI_MEAN, "image_std": OPENAI_STD},
    "ViT": {**_SQUASHED, "size": {"height": 224, "width": 224}, "resample": 2},
    "EfficientNet": {
        **_SQUASHED,
        "size": {"height": 346, "width": 346},
        "crop_size": {"height": 289, "width": 289},
        "include_top": True,
    },
}
_MOST_TILES = 16  # of one picture: a strip that is longer is not seen in full
Policy = Literal["shortest", "longest", "squash", "tiles"]
View = Literal["crop", "pad", "tiles"]

FILTERS = {
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
    """The pictures that a model reads.

    Policies: `shortest` crops the centre, `longest` pads, `squash` distorts, `tiles` gives several crops along the longer side.
    draft: JPEGs may be decoded at a part of their size, which is quicker and not quite the model's own preprocessing.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    policy: Policy = "shortest"
    fill: int = 0
    short: int | None = None  # short side before the crop, where that is not the crop itself
    stretch: tuple[int, int] | None = None  # height and width of a squash, where a crop follows
    crop: Literal["round", "floor"] = "round"  # an odd rest: open_clip rounds half to even, transformers cuts off
    draft: bool = False

    def __post_init__(self) -> None:
        if self.interpolation not in FILTERS:
            raise ModelError(f"unknown interpolation {self.interpolation!r}; expected one of {', '.join(FILTERS)}")
        if self.policy not in get_args(Policy):
            raise ModelError(f"unknown resize mode {self.policy!r}; expected shortest, longest or squash")
        sides = (self.height, self.width, self.short or self.height, *(self.stretch or ()))
        if not all(1 <= side <= LARGEST_SIDE for side in sides):
            side = next(side for side in sides if not 1 <= side <= LARGEST_SIDE)
            raise ModelError(f"a picture side of {side} makes no sense; expected 1 to {LARGEST_SIDE}")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ModelError(f"mean {self.mean} and std {self.std}; expected finite numbers and std above 0")

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any]) -> Preprocess:
        """From open_clip's `preprocess_cfg` (`size`, `mean`, `std`, `interpolation`, `resize_mode`, `fill_color`).

        Raises ModelError where size, mean or std is missing, or a value is of the wrong shape or kind.
        """
        return _from_open_clip(config)

    @classmethod
    def from_processor(cls, config: Mapping[str, Any]) -> Preprocess:
        """From transformers' `preprocessor_config.json`; what it leaves out is as in CLIPImageProcessor.

        Raises ModelError for steps that clipcond does not do and for values of the wrong shape or kind.
        """
        return _from_processor(config)

    def with_view(self, view: View) -> Preprocess:
        """The same model's input by another policy: `crop` the centre, `pad` with black, or `tiles`.

        A model whose own policy it is keeps its details, such as the level that it pads with.
        """
        wanted: Policy = {"crop": "shortest", "pad": "longest", "tiles": "tiles"}[view]  # type: ignore[assignment]
        if wanted == self.policy:
            return self
        return replace(self, policy=wanted, fill=0, short=None, stretch=None, crop="round")

    def crops(self, image: Image.Image) -> np.ndarray:
        """Return what the model sees of a picture, (T, height, width, 3) uint8: T is 1, but with `tiles` up to 16.

        Tiles lie evenly along the longer side from one end to the other. Raises ImageError as `pixels` does.
        """
        if self.policy != "tiles":
            return self.pixels(image)[None]
        profile = image.info.get("icc_profile")
        image = flatten(image)
        return np.stack([np.array(to_srgb(each, profile)) for each in self._tiles(image)])

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Return the picture as the model sees it, before normalisation: (height, width, 3) uint8; of tiles the centre.

        Memory is bounded by the picture's own: of what a crop takes away no more is resized than fits. Raises
        ImageError for pictures that nobody could show.
        """
        profile = image.info.get("icc_profile")
        seen = to_srgb(self._resized(flatten(image)), profile)
        if seen.size != (self.width, self.height):
            canvas = Image.new("RGB", (self.width, self.height), (self.fill,) * 3)
            canvas.paste(seen, (self._pad(seen.width, self.width), self._pad(seen.height, self.height)))
            seen = canvas
        return np.array(seen)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture after the resize, before crop or pad."""
        if self.policy == "squash":
            return (self.stretch[1], self.stretch[0]) if self.stretch else (self.width, self.height)
        if self.policy in ("shortest", "tiles") and (self.short or self.height == self.width):
            short = self.short or self.height
            return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
        pick = max if self.policy == "longest" else min
        ratio = pick(height / self.height, width / self.width)
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def parts(self, width: int, height: int) -> tuple[tuple[float, float, float, float], ...]:
        """The part of a picture of this size that each of its crops shows: left, top, right and bottom in its own pixels.

        A padded picture's part reaches beyond its edges.
        """
        after = self.resized(width, height)
        (across, wide), (down, high) = (
            (self._begins(now, want), own / now)
            for now, want, own in zip(after, (self.width, self.height), (width, height), strict=True)
        )
        return tuple(
            (left * wide, top * high, (left + self.width) * wide, (top + self.height) * high)
            for top in down
            for left in across
        )

    @property
    def shrink_to(self) -> int | None:
        """Sides of a JPEG in pixels that will do: twice those of the resize, where colours drift by 0.2 of 255; None for all."""
        return 2 * max(self.height, self.width, self.short or 0, *(self.stretch or ())) if self.draft else None

    def described(self) -> str:
        """One short text for people: side, policy and filter."""
        tiles = "tiles (the mean of their vectors)"
        policy = {"shortest": "centre crop", "longest": "padded", "squash": "squashed", "tiles": tiles}[self.policy]
        return f"{self.width}×{self.height} {policy}, {self.interpolation}{', JPEG draft' if self.draft else ''}"

    def share_seen(self, width: int, height: int) -> float:
        """Return how much of a picture of this size the model sees: 1 except where a crop cuts."""
        after = self.resized(width, height)
        across, down = (len(self._starts(*sides)) for sides in zip(after, (self.width, self.height), strict=True))
        return min(1.0, across * self.width / after[0]) * min(1.0, down * self.height / after[1])

    def _resized(self, image: Image.Image) -> Image.Image:
        """Resize and crop, in the picture's own mode: at most as wide and as high as the model's input."""
        size = self.resized(*image.size)
        across, down = (self._span(have, want) for have, want in zip(size, (self.width, self.height), strict=True))
        return self._resized_part(image, size, across, down)

    def _tiles(self, image: Image.Image) -> list[Image.Image]:
        """The crops of a resized picture, each as large as the model's input, from its left or upper end on."""
        size = self.resized(*image.size)
        across, down = (self._starts(*sides) for sides in zip(size, (self.width, self.height), strict=True))
        if size[0] * size[1] <= _LARGEST_RESIZE:  # once for all of them
            image = _resize(image, size, self.interpolation)
        return [
            self._resized_part(image, size, (left, left + self.width), (top, top + self.height))
            for top in down
            for left in across
        ]

    def _starts(self, have: int, want: int) -> list[int]:
        """The places at which crops of a resized side begin: one, but for tiles."""
        count = min(_MOST_TILES, math.ceil(have / want)) if self.policy == "tiles" else 1
        return [round(n * (have - want) / (count - 1)) for n in range(count)] if count > 1 else [0]

    def _begins(self, have: int, want: int) -> list[int]:
        """The places at which what the model sees of a resized side begins; below 0 where it is padded."""
        if self.policy == "tiles":
            return self._starts(have, want)
        return [-self._pad(have, want) if have < want else self._span(have, want)[0]]

    def _resized_part(
        self, image: Image.Image, size: tuple[int, int], across: tuple[int, int], down: tuple[int, int]
    ) -> Image.Image:
        """Resize to a size and crop, or the other way round where what is resized would be huge."""
        (left, right), (top, bottom) = across, down
        if size[0] * size[1] > _LARGEST_RESIZE:  # the crop first: exact to rounding, and of bounded size
            wide, high = image.width / size[0], image.height / size[1]
            box = (left * wide, top * high, right * wide, bottom * high)
            return _resize(image, (right - left, bottom - top), self.interpolation, box)
        image = _resize(image, size, self.interpolation)
        return image if (0, 0, *image.size) == (left, top, right, bottom) else image.crop((left, top, right, bottom))

    def _span(self, have: int, want: int) -> tuple[int, int]:
        """The stretch of a resized side that a crop keeps."""
        if have <= want:
            return 0, have
        start = round((have - want) / 2) if self.crop == "round" else (have - want) // 2
        return start, start + want

    def _pad(self, have: int, want: int) -> int:
        """Return how many pixels go before a side that is too short; transformers puts the larger half there."""
        return (want - have + (self.crop == "floor")) // 2


def _resize(
    image: Image.Image, size: tuple[int, int], interpolation: str, box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """Resize what is in the box, by default all; the axis first that keeps the picture between the two passes small."""
    if box is None and image.size == size:
        return image
    method = FILTERS[interpolation]
    if size[0] * image.height > _LARGEST_RESIZE and size[0] > image.width:  # Pillow would stretch every line first
        box = box or (0, 0, *image.size)
        image = image.resize((image.width, size[1]), method, (0, box[1], image.width, box[3]))
        box = (box[0], 0, box[2], size[1])
    return image.resize(size, method, box)


def _from_open_clip(config: Mapping[str, Any]) -> Preprocess:
    height, width = _pair(config.get("size"), "preprocess_cfg size")
    return Preprocess(
        height=height,
        width=width,
        mean=_triple(config.get("mean"), "preprocess_cfg mean"),
        std=_triple(config.get("std"), "preprocess_cfg std"),
        interpolation=_name(config.get("interpolation") or "bicubic", "preprocess_cfg interpolation"),
        policy=_policy(config.get("resize_mode") or "shortest"),
        fill=_level(config.get("fill_color") or 0, "preprocess_cfg fill_color"),
    )


def _from_processor(stated: Mapping[str, Any]) -> Preprocess:
    config = _completed(stated)
    _check_steps(config)
    size = {"shortest_edge": 224} if config.get("size") is None else config["size"]
    if isinstance(size, int) and config.get("square"):
        size = {"height": size, "width": size}
    short = size.get("shortest_edge") if isinstance(size, Mapping) else size if isinstance(size, int) else None
    crops = config.get("do_center_crop", True)
    if not crops and short is not None:
        raise ModelError("the image processor keeps the aspect and does not crop; expected pictures of one size")
    if isinstance(size, Mapping) and size.get("longest_edge") is not None:
        raise ModelError(f"image processor size is {size!r}; expected shortest_edge or height and width")
    if short is not None:
        short, _ = _pair(short, "image processor size")
    stretch = None if short is not None else _pair(size, "image processor size")
    wanted = (224 if config.get("crop_size") is None else config["crop_size"]) if crops else size
    height, width = _pair(wanted, "image processor crop_size" if crops else "image processor size")
    mean, std = _normalisation(config)
    return Preprocess(
        height=height,
        width=width,
        mean=mean,
        std=std,
        interpolation=_filter_name(_or_default(config.get("resample"), Image.Resampling.BICUBIC)),
        policy="squash" if short is None else "shortest",
        short=short,
        stretch=stretch if crops else None,
        crop="floor",
    )


def _completed(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings with the defaults of their class. Raises ModelError for a class whose defaults are not known."""
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "CLIPImageProcessor")
    for name, defaults in _DEFAULTS.items():
        if kind.startswith((f"{name}ImageProcessor", f"{name}FeatureExtractor")):
            given = {key: value for key, value in config.items() if value is not None}
            return {**defaults, **given, "efficient": name == "EfficientNet"}
    lacking = [name for name in _STATED if config.get(name) is None]
    if lacking:
        raise ModelError(f"the image processor is a {kind!r} that leaves out {lacking[0]}; expected it to be stated")
    return config


def _check_steps(config: Mapping[str, Any]) -> None:
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if not config.get(step, True) and not (step == "do_normalize" and config.get("efficient")):
            raise ModelError(f"the image processor sets {step} to false, which clipcond does not support")
    factor = _or_default(config.get("rescale_factor"), 1 / 255)
    if not isinstance(factor, (int, float)) or not (
        abs(factor - 1 / 255) <= 1e-9 or (config.get("efficient") and 0 < factor <= 1)
    ):
        raise ModelError(f"the image processor rescales by {factor!r}; expected 1/255")


def _normalisation(config: Mapping[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """The mean and the deviation of levels from 0 to 1 that do what a processor does.

    EfficientNet's, which ALIGN has, scales by a factor of its own, may take 1 off and may divide by the deviation twice.
    """
    mean = _triple(_or_default(config.get("image_mean"), OPENAI_MEAN), "image_mean")
    std = _triple(_or_default(config.get("image_std"), OPENAI_STD), "image_std")
    if not config.get("efficient"):
        return mean, std
    shift = 1.0 if config.get("rescale_offset") else 0.0
    normalised = config.get("do_normalize", True)
    powers = int(bool(normalised)) + int(bool(config.get("include_top")))
    range_ = 255 * _or_default(config.get("rescale_factor"), 1 / 255)
    own = mean if normalised else (0.0, 0.0, 0.0)
    means, deviations = [(shift + value) / range_ for value in own], [value**powers / range_ for value in std]
    return (means[0], means[1], means[2]), (deviations[0], deviations[1], deviations[2])


def _or_default(value: Any, default: object) -> Any:
    return default if value is None else value


def _filter_name(resample: Any) -> str:
    try:
        return Image.Resampling(resample).name.lower()
    except ValueError:
        raise ModelError(f"the image processor names an unknown filter: {resample!r}") from None


def _pair(size: object, what: str) -> tuple[int, int]:
    """Height and width from an int, a pair, or a mapping with those keys."""
    if isinstance(size, Mapping):
        size = [size.get("height"), size.get("width")]
    both = [size, size] if isinstance(size, int) else list(size) if isinstance(size, (list, tuple)) else []
    if len(both) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in both):
        raise ModelError(f"{what} is {size!r}; expected a number or height and width")
    return both[0], both[1]


def _triple(values: object, what: str) -> tuple[float, float, float]:
    """Three numbers, from three or from one for all."""
    numbers = [values] * 3 if isinstance(values, (int, float)) else values
    if (
        not isinstance(numbers, (list, tuple))
        or len(numbers) != 3
        or not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers)
    ):
        raise ModelError(f"{what} is {values!r}; expected three numbers")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _name(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ModelError(f"{what} is {value!r}; expected a name")
    return value


def _policy(value: object) -> Policy:
    if value == "shortest" or value == "longest" or value == "squash":
        return value
    raise ModelError(f"unknown resize mode {value!r}; expected shortest, longest or squash")


def _level(value: object, what: str) -> int:
    if not isinstance(value, int) or not 0 <= value <= 255:
        raise ModelError(f"{what} is {value!r}; expected a number from 0 to 255")
    return int(value)
