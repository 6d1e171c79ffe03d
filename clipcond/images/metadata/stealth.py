"""Fields hidden in pixels: NovelAI's and its relatives' text in the lowest bits of alpha, or of red, green and blue.

Column by column, down and then right, eight bits a byte, the highest first: 15 letters that name the form, the length
in bits as 32 bits, then the text, packed by gzip or as it is. Any re-encoding destroys it, and looking costs little: a
few columns unless the letters are there.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from clipcond.images.metadata.json_text import LARGEST_JSON, json_object

_FORMS = {
    b"stealth_pnginfo": ("A", False), b"stealth_pngcomp": ("A", True),
    b"stealth_rgbinfo": ("RGB", False), b"stealth_rgbcomp": ("RGB", True),
}  # fmt: skip
_NAME, _LENGTH = 15, 4  # bytes
_GZIP = 16 + zlib.MAX_WBITS


def stealth_fields(image: Image.Image) -> dict[str, str]:
    """Return the text fields that are hidden in a picture's pixels; none where there are none, or damaged ones.

    image: as it was opened, RGBA or RGB, not converted. A JSON object's strings are fields by their names, such as
    `Comment`; any other text is the field `parameters`. Never raises.
    """
    for bands in ("A", "RGB"):
        text = _hidden(image, bands) if set(bands) <= set(image.getbands()) and image.mode in ("RGB", "RGBA") else None
        if text:
            return _fields(text)
    return {}


def _hidden(image: Image.Image, bands: str) -> str | None:
    head = _bytes(image, bands, 0, _NAME + _LENGTH)
    form = _FORMS.get(head[:_NAME])
    if form is None or form[0] != bands:
        return None
    bits = int.from_bytes(head[_NAME:], "big")
    if bits % 8 or bits // 8 > LARGEST_JSON:
        return None
    content = _bytes(image, bands, _NAME + _LENGTH, bits // 8)
    if len(content) < bits // 8:
        return None
    unpacked = _unpacked(content) if form[1] else content
    try:
        return None if unpacked is None else unpacked.decode()
    except UnicodeDecodeError:
        return None


def _bytes(image: Image.Image, bands: str, start: int, count: int) -> bytes:
    """Bytes from the lowest bits of some bands; only the columns that hold them are looked at. Fewer where it ends."""
    per_column = image.height * len(bands)  # bits
    first, last = 8 * start // per_column, min(image.width, -(-8 * (start + count) // per_column))
    if first >= last:
        return b""
    columns = image.crop((first, 0, last, image.height))
    planes = [np.asarray(columns.getchannel(band)) & 1 for band in bands]
    bits = np.stack(planes, axis=-1).transpose(1, 0, 2).reshape(-1)  # column, row, band
    skipped = 8 * start - first * per_column
    wanted = bits[skipped : skipped + 8 * count]
    return np.packbits(wanted[: len(wanted) // 8 * 8]).tobytes()


def _unpacked(content: bytes) -> bytes | None:
    unpacker = zlib.decompressobj(_GZIP)
    try:
        text = unpacker.decompress(content, LARGEST_JSON)
    except zlib.error:
        return None
    return text if unpacker.eof else None


def _fields(text: str) -> dict[str, str]:
    values: Mapping[str, object] | None = json_object(text)
    if values is None or not any(name in values for name in ("Comment", "Description", "Software")):
        return {"parameters": text}
    found = {name: value for name, value in list(values.items())[:64] if isinstance(value, str)}
    return {"Software": "NovelAI", **found}
