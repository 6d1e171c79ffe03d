"""Pictures and data inside a page: data URIs, and JSON for its script."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_LARGEST = 1024  # pixels of the longer side of a picture


def picture_uri(image: Image.Image) -> str:
    """A picture as a data URI: at most 1024 pixels long, small ones without loss."""
    small = image.convert("RGB")
    if max(small.size) > _LARGEST:
        small.thumbnail((_LARGEST, _LARGEST))
    file = io.BytesIO()
    kind = "png" if max(small.size) <= 256 else "jpeg"
    small.save(file, kind.upper(), **({} if kind == "png" else {"quality": 88}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def safe_json(data: object) -> str:
    """JSON that cannot end its script element; half of a surrogate pair, as in odd file names, stays an escape."""
    return json.dumps(data, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
