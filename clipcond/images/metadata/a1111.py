"""Infotexts: A1111, Forge, SD.Next and clipcond write them into PNG text, UserComment and GIF comments."""

from __future__ import annotations

import json
from collections.abc import Mapping

from clipcond.images.metadata.image_prompt import ImagePrompt
from clipcond.prompt.infotext import parse_infotext

LARGEST = 1 << 16  # characters of a field that is read: fifty times the longest prompts that people write


def read_a1111(fields: Mapping[str, str]) -> ImagePrompt | None:
    """Return the infotext of the first field that has one, the reason why that field has none, or None."""
    for source in ("parameters", "UserComment"):
        if source in fields:
            return _infotext(source, fields[source])
    comment = _infotext("comment", fields["comment"]) if "comment" in fields else None
    if comment is None or comment.infotext is None:
        return comment if comment is not None and comment.reason else None
    # programs and cameras leave notes there: it is an infotext only where it has an infotext's marks
    marked = comment.infotext.settings or comment.infotext.negative_prompt
    return comment if marked else None


def _infotext(source: str, text: str) -> ImagePrompt:
    if len(text) > LARGEST:
        return ImagePrompt(None, source, f"its {source} field is too large to be a prompt ({len(text):,} characters)")
    if _is_json(text):
        return ImagePrompt(None, source, f"its {source} field holds JSON, not an A1111 infotext; pass a prompt")
    infotext = parse_infotext(text)
    return ImagePrompt(None if infotext.problem else infotext, source, infotext.problem)


def _is_json(text: str) -> bool:
    """True if the field holds a JSON object; `{red|blue} fox` is a prompt."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
