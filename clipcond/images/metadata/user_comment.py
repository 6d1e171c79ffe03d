"""EXIF UserComment: a character code of eight bytes and text, as the standard has it and as tools really write it."""

from __future__ import annotations

import unicodedata

_CODE = 8  # bytes
_MOST_BREAKS = 0.2  # of the characters of a text
_SAMPLE = 4096  # characters by which a reading is judged
_TEXT_CODES = {b"ASCII": "utf-8", b"UTF-8": "utf-8", b"UTF8": "utf-8", b"": "utf-8", b"JIS": "shift_jis"}
_SCRIPTS = (  # Greek to Arabic, Indian scripts and Thai, punctuation, Chinese, Japanese, Korean, wide forms
    (0x370, 0x6FF), (0x900, 0xE7F), (0x2010, 0x20CF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7AF), (0xFF00, 0xFFEF),
)  # fmt: skip
_LEAST_LIKENESS = 0.9  # for each character, of what has no code: half of that is what chance gives


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
    """Text that begins at once: UTF-8, or UTF-16 with a mark or a zero byte that looks like text: cameras write bytes, too."""
    text = _utf8(value)
    if text is not None:
        return text
    if b"\0" not in value and value[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return ""
    text = _utf16(value, big_endian)
    return text if text and _likeness(text) >= _LEAST_LIKENESS * len(text[:_SAMPLE]) else ""


def _unicode(body: bytes, big_endian: bool) -> str:
    text = _utf8(body)
    return _utf16(body, big_endian) if text is None else text


def _utf8(value: bytes) -> str | None:
    """UTF-8, or None: UTF-16 nearly always has zero bytes, other control characters, or is not valid as UTF-8."""
    try:
        text = value.rstrip(b"\0").decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    breaks = sum(map(text.count, "\n\r\t"))  # the high bytes of Indian scripts in UTF-16
    return text if all(map(_printable, text)) and breaks <= _MOST_BREAKS * len(text) else None


def _utf16(body: bytes, big_endian: bool) -> str:
    body = body[: len(body) // 2 * 2]
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", errors="replace").rstrip("\0")
    codecs = ("utf-16-be", "utf-16-le") if big_endian else ("utf-16-le", "utf-16-be")
    readings = [text.rstrip("\0") for text in (_strict(body, codec) for codec in codecs) if text is not None]
    if not readings:
        return body.decode(codecs[0], errors="replace").rstrip("\0")
    return max(readings, key=_likeness)  # of equals the first, in the block's own order


def _strict(body: bytes, codec: str) -> str | None:
    try:
        return body.decode(codec)
    except UnicodeDecodeError:
        return None


def _likeness(text: str) -> int:
    """Return how much a reading looks like text: Latin letters count double, since swapped they are Chinese ones."""
    return sum(map(_character_likeness, text[:_SAMPLE]))


def _character_likeness(character: str) -> int:
    code = ord(character)
    if not _printable(character):
        return -4
    if code < 0x250:
        return 2
    return int(any(first <= code <= last for first, last in _SCRIPTS))


def _printable(character: str) -> bool:
    return character in "\n\r\t" or unicodedata.category(character) not in {"Cc", "Cn", "Co", "Cs"}
