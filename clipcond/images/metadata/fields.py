"""Fields of a picture that hold text, by name: PNG text, EXIF UserComment of either directory, GIF and JPEG comments."""

from __future__ import annotations

from PIL import Image

from clipcond.images.metadata.user_comment import decode_user_comment

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286


def text_fields(image: Image.Image) -> dict[str, str]:
    """Return the text of `parameters`, `UserComment` and `comment`, without those that are absent or empty.

    image: opened and decoded, since PNG text may stand behind the pixels. Never raises.
    """
    fields = {"parameters": _png_text(image), "UserComment": _user_comment(image), "comment": _comment(image)}
    return {name: text for name, text in fields.items() if text}


def _png_text(image: Image.Image) -> str:
    text = image.info.get("parameters", "")
    return text if isinstance(text, str) else ""


def _comment(image: Image.Image) -> str:
    text = image.info.get("comment", b"")
    return text.decode("utf-8", errors="replace") if isinstance(text, bytes) else ""


def _user_comment(image: Image.Image) -> str:
    """Return the UserComment of the Exif directory, or else of the first one, where some tools put it."""
    try:
        exif = image.getexif()
        values = (exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT), exif.get(_USER_COMMENT))
        big_endian = exif.endian == ">"
    except Exception:  # damaged EXIF: as good as none, and the pixels may be fine
        return ""
    for value in values:
        if isinstance(value, str):
            text = value.rstrip("\0")
        else:
            text = decode_user_comment(bytes(value), big_endian) if isinstance(value, (bytes, bytearray)) else ""
        if text:
            return text
    return ""
