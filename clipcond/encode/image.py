"""Pictures in, unit vectors out: opening, preprocessing as the model's own config says, and the image tower.

Preprocessing is Pillow's on 8-bit RGB, in the order orientation, conversion, resize, crop or pad; normalisation is part
of the batch that goes to the model. Pillow resizes palettes by nearest neighbour, drops alpha without a background and
clips 16-bit greys, so conversion comes first and takes care of all three.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from clipcond.encode.torchvision_repair import repair
from clipcond.errors import ConfigError, ImageError, ModelError, ShapeError

Policy = Literal["shortest", "longest", "squash"]

BACKGROUND = (255, 255, 255)  # behind transparent pixels
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "random": Image.Resampling.BICUBIC,  # what open_clip scores with where it trained with a random filter
}


def open_image(path: str | Path) -> Image.Image:
    """Open and decode a picture. Raises ImageError `PATH: reason` for anything that cannot be decoded to its end."""
    path = Path(path)
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, not a picture")
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        reason = "is empty" if path.stat().st_size == 0 else "is not a picture in a format that can be read"
        raise ImageError(f"{path}: {reason}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise ImageError(f"{path}: is too large ({_brief(error)})") from error
    except Exception as error:  # Pillow's decoders raise almost anything on damaged bytes
        raise ImageError(f"{path}: cannot be decoded ({_brief(error)})") from error


def _brief(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture as people see it: upright by its EXIF orientation, on white where it is transparent, 8-bit RGB."""
    image = _upright(image)
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion clips at 255 instead of dividing
        levels = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            image = Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing about orientation, and the pixels are fine
        return image
    return image if turn is None else image.transpose(turn)


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


class ImageTower:
    """One image encoder behind one interface: pictures to float32 vectors of unit length."""

    def __init__(self, model: torch.nn.Module, preprocess: Preprocess, forward: Callable[[Tensor], Tensor]) -> None:
        """forward: (N, 3, height, width) normalised pixels → (N, P) projected, not yet normalised."""
        self.model, self.preprocess, self._forward = model, preprocess, forward
        self._mean = torch.tensor(preprocess.mean).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(preprocess.std).view(1, 3, 1, 1) * 255

    @classmethod
    def from_open_clip(cls, model: torch.nn.Module, config: Mapping[str, Any]) -> ImageTower:
        """From an open_clip model and its `preprocess_cfg`. Raises ModelError if either will not do."""
        if not hasattr(model, "visual"):
            raise ModelError(f"{type(model).__name__} has no image encoder; expected an open_clip CLIP")
        encode: Any = model.encode_image
        return cls(model, Preprocess.from_open_clip(config), encode)

    @classmethod
    def from_transformers(cls, model: torch.nn.Module, config: Mapping[str, Any]) -> ImageTower:
        """From a transformers CLIPModel or CLIPVisionModelWithProjection and its image processor's config."""
        vision: Any = getattr(model, "vision_model", None)
        project: Any = getattr(model, "visual_projection", None)
        if vision is None or project is None:
            raise ModelError(f"{type(model).__name__} has no image encoder with a projection; expected a CLIPModel")
        repair()
        return cls(
            model,
            Preprocess.from_processor(config),
            lambda pixels: project(vision(pixel_values=pixels).pooler_output),
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, in which pictures are encoded."""
        return next(self.model.parameters()).dtype

    def embed(self, images: Sequence[Image.Image], batch_size: int = 32) -> Tensor:
        """Encode pictures; they are prepared in threads while the tower works.

        Returns (N, P) float32 on the CPU, rows of unit length; a row does not depend on its batch beyond 1e-6.
        Raises ConfigError for an empty sequence or a batch size below 1.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected 1 or more")
        if not images:
            raise ConfigError("no pictures to encode; expected one or more")
        with ThreadPoolExecutor(workers()) as pool:
            prepared = pool.map(self.preprocess.pixels, images)
            return torch.cat([self.embed_pixels(np.stack(batch)) for batch in _batches(prepared, batch_size)])

    @torch.inference_mode()
    def embed_pixels(self, pixels: np.ndarray) -> Tensor:
        """Encode one batch of prepared pictures, (N, height, width, 3) uint8, to (N, P) float32 unit rows on the CPU.

        Raises ShapeError if the pixels are not what `preprocess.pixels` makes.
        """
        expected = (self.preprocess.height, self.preprocess.width, 3)
        if pixels.ndim != 4 or pixels.shape[1:] != expected or pixels.dtype != np.uint8:
            raise ShapeError(
                f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 (N, {', '.join(map(str, expected))})"
            )
        batch = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()
        batch = (batch - self._mean.to(batch.device)) / self._std.to(batch.device)
        features = self._forward(batch.to(self.dtype)).float()
        return torch.nn.functional.normalize(features, dim=-1).cpu()


def workers() -> int:
    """Threads for decoding and resizing: Pillow releases the interpreter while it works."""
    return min(8, os.cpu_count() or 1)


def _batches(items: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
