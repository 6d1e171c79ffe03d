"""Small JPEGs of pictures for pages that load nothing: upright, on white, in sRGB."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from clipcond.errors import ImageError
from clipcond.images.colour import flatten, to_srgb
from clipcond.images.decode import decoded

_QUALITY = 80


def thumbnail_uri(source: Path | BinaryIO, longest: int, *, name: str | None = None) -> str:
    """Return a data URI of a picture whose longer side has at most so many pixels; an empty text where it cannot be read."""
    try:
        with decoded(source, name=name, shrink_to=longest) as image:
            profile = image.info.get("icc_profile")
            seen = flatten(image)
            seen.thumbnail((longest, longest), Image.Resampling.BICUBIC)
            seen = to_srgb(seen, profile)
            file = io.BytesIO()
            seen.convert("RGB").save(file, "JPEG", quality=_QUALITY)
    except (ImageError, OSError, ValueError):
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
