"""Fields of a picture that tools other than A1111 write: PNG text of any name, ComfyUI's chunk, EXIF strings, XMP."""

from __future__ import annotations

from PIL import Image

from clipcond.images.metadata.user_comment import decode_user_comment

EXIF_FIELDS = {
    0x010C: "exif:0x010C", 0x010D: "exif:DocumentName", 0x010E: "exif:ImageDescription", 0x010F: "exif:Make",
    0x0110: "exif:Model", 0x0131: "exif:Software", 0x927C: "exif:MakerNote",
}  # fmt: skip
XMP = "XML:com.adobe.xmp"
_MOST_FIELDS = 256  # of PNG text
_LARGEST = 1 << 22  # bytes or characters of a field that is kept


def more_text_fields(image: Image.Image) -> dict[str, str]:
    """Return PNG text by its keyword, EXIF strings as `exif:Make` and the like, and XMP as `XML:com.adobe.xmp`.

    image: opened and decoded, since PNG text may stand behind the pixels. A field that is too large is left out, and so
    are `parameters` and `comment`, which `text_fields` has. Never raises.
    """
    fields = {**_exif_strings(image), **_png_text(image), **_comf_chunks(image)}
    return {name: text for name, text in fields.items() if text and len(text) <= _LARGEST}


def _png_text(image: Image.Image) -> dict[str, str]:
    found = {}
    for name, value in list(image.info.items())[:_MOST_FIELDS]:
        if name in ("xmp", XMP):
            found[XMP] = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
        elif isinstance(name, str) and isinstance(value, str) and name not in ("parameters", "comment"):
            found[name] = value
    return found


def _comf_chunks(image: Image.Image) -> dict[str, str]:
    """The chunks `comf` of an animated PNG: a name, a zero byte and text."""
    found = {}
    for chunk in list(getattr(image, "private_chunks", ()))[:_MOST_FIELDS]:
        if len(chunk) >= 2 and chunk[0] == b"comf" and isinstance(chunk[1], bytes):
            name, _, text = chunk[1].partition(b"\0")
            found[name.decode("latin-1")] = text.decode("utf-8", errors="replace")
    return {name: text for name, text in found.items() if name in ("prompt", "workflow")}


def _exif_strings(image: Image.Image) -> dict[str, str]:
    try:
        exif = image.getexif()
        values = {name: exif.get(tag) for tag, name in EXIF_FIELDS.items()}
        if values["exif:MakerNote"] is None:
            values["exif:MakerNote"] = exif.get_ifd(0x8769).get(0x927C)
    except Exception:  # damaged EXIF: as good as none, and the pixels may be fine
        return {}
    return {name: _text(value) for name, value in values.items()}


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return decode_user_comment(value) if len(value) <= _LARGEST else ""
    return value.rstrip("\0") if isinstance(value, str) else ""
