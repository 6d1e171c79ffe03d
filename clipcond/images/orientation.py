"""Pictures turned upright by their orientation tag."""

from __future__ import annotations

import struct

from PIL import Image

_ORIENTATION = 0x0112  # the EXIF tag
_SHORT = 3  # the TIFF type
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, tagged: Image.Image | None = None) -> Image.Image:
    """Return the picture turned as its tag says; as it is where there is no tag or damaged EXIF.

    tagged: the picture that carries the tag, where `image` was made from it.
    """
    turn = TURNS.get(_orientation(tagged or image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The first tag of the EXIF block, as browsers read it; Pillow takes the last of several."""
    exif = image.info.get("exif")
    first = _first_tag(exif) if isinstance(exif, bytes) else None
    if first is not None and image.format != "TIFF":  # Pillow turns TIFFs itself
        return first
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing about orientation, and the pixels are fine
        return 1
    return found if isinstance(found, int) else 1


def _first_tag(exif: bytes) -> int | None:
    """The first orientation in the first directory of an EXIF block, or None."""
    block = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for number in range(count):
            tag, kind, values, value = struct.unpack_from(f"{order}HHIH", block, start + 2 + 12 * number)
            if (tag, kind, values) == (_ORIENTATION, _SHORT, 1):
                return int(value)
    except struct.error:
        return None
    return None
