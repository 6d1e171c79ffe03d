"""The prompt that a picture carries, where A1111, Forge, SD.Next and clipcond write it.

PNG: the text chunk `parameters`. JPEG, WebP and AVIF: EXIF UserComment (0x9286 of the Exif IFD), an 8-byte character
code and text. GIF: the comment. All hold an infotext. Metadata is hostile input: sizes are capped, and the answer is a
prompt or a reason, never an exception.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from PIL import Image

from clipcond.prompt.dialects.names import DIALECTS
from clipcond.prompt.dialects.translate import translate
from clipcond.prompt.infotext import Infotext, parse_infotext

LARGEST = 1 << 20  # bytes or characters of a field that is read; Pillow's own cap for PNG text
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """What a picture says about its making: an infotext and the field it was in, or the reason why there is none."""

    infotext: Infotext | None
    source: str = ""
    reason: str = ""


def read_metadata(image: Image.Image) -> ImagePrompt:
    """The infotext of a picture that was opened and decoded. Never raises."""
    for source, read in (("parameters", _png_text), ("UserComment", _user_comment), ("comment", _gif_comment)):
        text = read(image)
        if not text:
            continue
        if len(text) > LARGEST:
            return ImagePrompt(
                None, source, f"its {source} field is too large to be a prompt ({len(text):,} characters)"
            )
        if _is_json(text):
            return ImagePrompt(None, source, f"its {source} field holds JSON, not an A1111 infotext; pass a prompt")
        return ImagePrompt(parse_infotext(text), source)
    return ImagePrompt(None, "", "it carries no prompt (no parameters, UserComment or comment field); pass a prompt")


def plain_prompt(infotext: Infotext) -> str:
    """The prompt without the marks of its syntax: what the picture is to show, for a model that reads plain text.

    The syntax is the one that clipcond wrote beside it, otherwise A1111's, whose format this is.
    """
    dialect = infotext.settings.get("Prompt dialect", "")
    return translate(infotext.prompt, dialect if dialect in DIALECTS else "a1111", "plain").text.strip()


def _is_json(text: str) -> bool:
    """Whether the field holds a JSON object; `{red|blue} fox` is a prompt."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _png_text(image: Image.Image) -> str:
    text = image.info.get("parameters", "")
    return text if isinstance(text, str) else ""


def _gif_comment(image: Image.Image) -> str:
    text = image.info.get("comment", b"")
    if image.format != "GIF" or not isinstance(text, bytes):
        return ""
    return text.decode("utf-8", errors="replace")


def _user_comment(image: Image.Image) -> str:
    try:
        value = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT, b"")
    except Exception:  # damaged EXIF: as good as none, and the pixels may be fine
        return ""
    if isinstance(value, str):
        return value
    return decode_user_comment(bytes(value)) if isinstance(value, (bytes, bytearray)) else ""


def decode_user_comment(value: bytes) -> str:
    """The text of an EXIF UserComment; empty if the code is unknown.

    `UNICODE` is UTF-16 without a mark, big-endian as A1111 writes it or in a writer's native order: whichever has its
    zero bytes where Latin letters put them.
    """
    code, body = value[:8], value[8:]
    if code == b"UNICODE\0":
        return _utf16(body)
    if code in (b"ASCII\0\0\0", bytes(8)):
        return body.rstrip(b"\0").decode("utf-8", errors="replace")
    if code == b"JIS\0\0\0\0\0":
        return body.rstrip(b"\0").decode("shift_jis", errors="replace")
    return ""


def _utf16(body: bytes) -> str:
    body = body[: len(body) // 2 * 2]
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", errors="replace").rstrip("\0")
    little = body[1::2].count(0) > body[::2].count(0)
    return body.decode("utf-16-le" if little else "utf-16-be", errors="replace").rstrip("\0")
