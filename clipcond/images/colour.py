"""Decoded pictures as people see them: upright, 8 bits a channel, on white, in sRGB.

Pillow resizes palettes by nearest neighbour, drops alpha without a background, clips 16-bit greys and ignores colour
profiles. All but the profile are settled before the resize of `clipcond.images.preprocess`, the profile after it, when
there are few pixels left. Large pictures are converted in bands, so that memory stays near that of the picture itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clipcond.errors import ImageError
from clipcond.images.orientation import upright

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

BACKGROUND = (255, 255, 255)  # behind transparent pixels
_BAND = 1 << 22  # pixels that are converted at a time
_LARGEST_PROFILE = 1 << 23  # bytes
_NO_DIFFERENCE = 2  # of 255: a profile that changes no colour by more is taken for sRGB
_SAMPLE_FORMAT = 339  # the TIFF tag; 1 says that integers are unsigned


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the picture as people see it: upright by its orientation tag, on white where it is transparent, sRGB.

    Raises ImageError for levels that nobody could show: not finite, negative, or floats of an unknown scale.
    """
    return to_srgb(flatten(image), image.info.get("icc_profile"))


def flatten(image: Image.Image) -> Image.Image:
    """Return the picture upright, 8-bit and opaque: in mode L or RGB, or CMYK where it has a colour profile."""
    levels = _eight_bit(image) if image.mode == "F" or image.mode.startswith("I") else image
    shown = upright(levels, image)
    if shown.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in shown.info:
        return _on_white(shown if shown.mode == "RGBA" else shown.convert("RGBA"))
    if shown.mode in ("L", "RGB") or (shown.mode == "CMYK" and shown.info.get("icc_profile")):
        return shown
    if shown.mode == "LAB":
        return _from_lab(shown)
    return shown.convert("L" if shown.mode == "1" else "RGB")


def to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """Convert a flattened picture from its ICC profile to sRGB, in mode RGB. A damaged profile counts as none.

    profile: the bytes of the profile, or anything else for none.
    """
    if isinstance(profile, bytes) and 0 < len(profile) <= _LARGEST_PROFILE:
        if image.mode == "L" and profile[16:20] == b"RGB ":
            image = image.convert("RGB")
        transform = _transform(profile, image.mode)
        if transform is not None:
            from PIL.ImageCms import applyTransform

            converted = applyTransform(image, transform)
            image = image if converted is None else converted
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    """The transform to sRGB, or None where there is none to be made or it changes nothing."""
    try:
        from PIL import ImageCms

        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        probe = _probe(mode)
        shown = np.asarray(ImageCms.applyTransform(probe, transform), dtype=int)
    except Exception:  # Little CMS is absent, or the profile is damaged or of another kind of picture
        return None
    if mode != "CMYK" and np.abs(shown - np.asarray(probe.convert("RGB"), dtype=int)).max() <= _NO_DIFFERENCE:
        return None
    return transform


def _probe(mode: str) -> Image.Image:
    """A picture with colours from all over the mode's space."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    if mode == "L":
        return Image.fromarray(steps[None])
    grid = np.stack(np.meshgrid(*[steps] * len(mode), indexing="ij"), axis=-1)
    return Image.frombytes(mode, (9 * 9, grid.size // (81 * len(mode))), grid.tobytes())


def _from_lab(image: Image.Image) -> Image.Image:
    """CIELAB, which Pillow converts through Little CMS alone, to sRGB; its profile is used up by that."""
    from PIL.ImageCms import createProfile, profileToProfile

    shown = profileToProfile(image, createProfile("LAB"), createProfile("sRGB"), outputMode="RGB")
    if shown is None:
        raise ImageError("its colours are CIELAB, which this Pillow cannot convert")
    return shown


def _on_white(image: Image.Image) -> Image.Image:
    """RGBA to RGB over the background."""
    if image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    canvas = Image.new("RGB", image.size)
    for box in _bands(image):
        band = image.crop(box)
        canvas.paste(Image.alpha_composite(Image.new("RGBA", band.size, (*BACKGROUND, 255)), band).convert("RGB"), box)
    canvas.info = image.info
    return canvas


def _eight_bit(image: Image.Image) -> Image.Image:
    """A picture of 16 or 32 bits, integers or floats, in mode L: its scale by its kind and its largest level."""
    low, high, dtype = _range(image)
    if low < 0:
        raise ImageError(f"its levels run from {low:g} to {high:g}; expected none below 0")
    scale = _scale(image.mode, high, dtype)
    out = np.empty((image.height, image.width), dtype=np.uint8)
    for box in _bands(image):
        band = _levels(image, box, dtype).astype(np.float64)
        out[box[1] : box[3]] = np.clip(np.rint(band * (255 / scale)), 0, 255)
    shown = Image.fromarray(out)
    shown.info = image.info
    return shown


def _range(image: Image.Image) -> tuple[float, float, np.dtype[np.generic] | None]:
    """The least and the largest level, and the type as which the pixels are to be read where it is not Pillow's."""
    tags: object = getattr(image, "tag_v2", None)
    unsigned = image.mode == "I" and hasattr(tags, "get") and tags.get(_SAMPLE_FORMAT, 1) in (1, (1,))
    dtype = np.dtype(np.uint32) if unsigned else None
    lows, highs = [], []
    for box in _bands(image):
        band = _levels(image, box, dtype)
        if not np.isfinite(band).all():
            raise ImageError("it holds levels that are no numbers or infinite; expected finite ones")
        lows.append(float(band.min()))
        highs.append(float(band.max()))
    return min(lows), max(highs), dtype


def _scale(mode: str, high: float, dtype: np.dtype[np.generic] | None) -> float:
    """The level that is white."""
    if mode == "F":
        for most, white in ((2.0, 1.0), (256.0, 255.0), (65536.0, 65535.0)):  # a little above white is cut
            if high <= most:
                return white
        raise ImageError(f"its floats run to {high:g}; expected 0 to 1, to 255 or to 65535")
    if high <= 65535:
        return 65535.0
    return 2.0**32 - 1 if dtype is not None else 2.0**31 - 1


def _levels(
    image: Image.Image, box: tuple[int, int, int, int], dtype: np.dtype[np.generic] | None
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    band = np.asarray(image if box == (0, 0, *image.size) else image.crop(box))
    return band if dtype is None else band.view(dtype)


def _bands(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes from top to bottom that tile the picture."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(image.height, top + rows)
