"""A plain prompt in phrases, to be scored one by one."""

from __future__ import annotations

import re

_BORDER = re.compile(r"[,;|\n，、；。]+|[.!?]+(?=\s|$)|\b(?:BREAK|AND)\b")
_MOST = 40  # phrases of a prompt: beyond that its end is a heap of tags


def split_phrases(prompt: str) -> tuple[str, ...]:
    """Return the phrases between commas, stops, line feeds, BREAK and AND, each once, without spaces at their ends."""
    parts = (" ".join(part.split()) for part in _BORDER.split(prompt))
    return tuple(dict.fromkeys(part for part in parts if any(letter.isalnum() for letter in part)))[:_MOST]
