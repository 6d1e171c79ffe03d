"""EXIF UserComment: a character code of eight bytes and text, as the standard has it and as tools really write it."""

from __future__ import annotations

import unicodedata

_CODE = 8  # bytes
_TEXT_CODES = {b"ASCII": "utf-8", b"UTF-8": "utf-8", b"UTF8": "utf-8", b"": "utf-8", b"JIS": "shift_jis"}
_SCRIPTS = ((0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7AF), (0xFF00, 0xFFEF))  # Chinese, Japanese, Korean


def decode_user_comment(value: bytes, big_endian: bool = True) -> str:
    """Return the text of a UserComment; empty if it is no text.

    big_endian: the byte order of the EXIF block, which decides between two readings of UTF-16 that are equally likely.
    `UNICODE` may hold UTF-16 of either order, with or without a mark, or UTF-8. A value without a known code is text as
    a whole.
    """
    code, body = value[:_CODE].rstrip(b"\0 ").upper(), value[_CODE:]
    if len(value) < _CODE or (code != b"UNICODE" and code not in _TEXT_CODES):
        return _without_code(value, big_endian)
    if code == b"UNICODE":
        return _unicode(body, big_endian)
    return body.rstrip(b"\0").decode(_TEXT_CODES[code], errors="replace")


def _without_code(value: bytes, big_endian: bool) -> str:
    """Text that begins at once: UTF-8, or UTF-16 where it has a mark or zero bytes."""
    text = _utf8(value)
    if text is None and (b"\0" in value or value[:2] in (b"\xff\xfe", b"\xfe\xff")):
        text = _utf16(value, big_endian)
    return text if text is not None and _likeness(text) > 0 else ""


def _unicode(body: bytes, big_endian: bool) -> str:
    text = _utf8(body)
    return _utf16(body, big_endian) if text is None else text


def _utf8(value: bytes) -> str | None:
    """UTF-8 without a zero byte, or None: UTF-16 nearly always has one, or is not valid as UTF-8."""
    value = value.rstrip(b"\0")
    if b"\0" in value:
        return None
    try:
        return value.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _utf16(body: bytes, big_endian: bool) -> str:
    body = body[: len(body) // 2 * 2]
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", errors="replace").rstrip("\0")
    codecs = ("utf-16-be", "utf-16-le") if big_endian else ("utf-16-le", "utf-16-be")
    readings = [text for text in (_strict(body, codec) for codec in codecs) if text is not None]
    if not readings:
        return body.decode(codecs[0], errors="replace").rstrip("\0")
    return max(readings, key=_likeness).rstrip("\0")  # of equals the first, in the block's own order


def _strict(body: bytes, codec: str) -> str | None:
    try:
        return body.decode(codec)
    except UnicodeDecodeError:
        return None


def _likeness(text: str) -> int:
    """Return how much a reading looks like text: Latin letters count double, since swapped they are Chinese ones."""
    return sum(map(_character_likeness, text[:4096].rstrip("\0")))


def _character_likeness(character: str) -> int:
    code = ord(character)
    if unicodedata.category(character) in {"Cc", "Cn", "Co", "Cs"} and character not in "\n\r\t":
        return -4
    if code < 0x250:
        return 2
    return int(any(first <= code <= last for first, last in _SCRIPTS))
