"""Stand-ins, cell for cell, for the signs of our own output that a stream's encoding does not have."""

from __future__ import annotations

import codecs

STAND_INS = "clipcond-stand-ins"  # the name of the error handler

_SIGNS = {
    "·": "|", "→": ">", "×": "x", "…": "~", "–": "-", "—": "-", "┈": "-", "█": "#", "░": ".", "↵": "/", "←": "<",
    "“": '"', "”": '"', "‘": "'", "’": "'", "�": "?",
    **dict.fromkeys("▏▎▍▌", "-"), **dict.fromkeys("▋▊▉", "#"),
    **dict.fromkeys(map(chr, range(0x2400, 0x2422)), "?"),
}  # fmt: skip


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Replace our own signs by stand-ins of one cell, and characters of the user by their escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_SIGNS.get(each) or _escape(each) for each in text), error.end


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(STAND_INS, _replace)


def as_shown(text: str, encoding: str | None) -> str:
    """Return a text as a stream of that encoding will show it, to measure its cells."""
    try:
        text.encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return text.encode(encoding or "utf-8", STAND_INS).decode(encoding or "utf-8")
    return text
