"""NovelAI: `Software` says so, `Description` has the prompt and `Comment` JSON with everything, V4's characters too.

NovelAI's emphasis, `{more}`, `[less]` and `1.5::much more::`, comes out as A1111's `(more:1.05)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from clipcond.images.metadata.image_prompt import ImagePrompt
from clipcond.images.metadata.json_text import (
    LARGEST_PROMPT,
    image_prompt,
    joined,
    json_object,
    mapping,
    plain_text,
    sequence,
)

_STEP = 1.05  # of a brace
_MARK = re.compile(r"(-?\d{1,4}(?:\.\d{1,4})?|-?\.\d{1,4})?::|[{}\[\]()]")
_SETTINGS = ("steps", "scale", "sampler", "seed", "width", "height", "noise_schedule", "cfg_rescale", "request_type")


def read_novelai(fields: Mapping[str, str]) -> ImagePrompt | None:
    """Return NovelAI's prompt, or None."""
    values = json_object(fields.get("Comment"))
    named = fields.get("Software", "").startswith("NovelAI")
    if not named and not (values is not None and "uc" in values and isinstance(values.get("prompt"), str)):
        return None
    values = values or {}
    raw = _caption(values.get("v4_prompt")) or plain_text(values.get("prompt")) or plain_text(fields.get("Description"))
    negative = _caption(values.get("v4_negative_prompt")) or plain_text(values.get("uc"))
    if max(len(raw), len(negative)) > LARGEST_PROMPT:
        raw, negative = raw[: LARGEST_PROMPT + 1], negative[: LARGEST_PROMPT + 1]
    settings = {name: values[name] for name in _SETTINGS if name in values}
    for name in ("Software", "Source"):
        if name in fields:
            settings[name] = fields[name]
    return image_prompt(
        tool="NovelAI",
        field="Comment" if values else "Description",
        prompt=with_a1111_emphasis(raw),
        negative_prompt=with_a1111_emphasis(negative),
        dialect="a1111",
        settings=settings,
    )


def _caption(value: object) -> str:
    """The caption of the picture and of each character."""
    caption = mapping(mapping(value).get("caption"))
    characters = [mapping(each).get("char_caption") for each in sequence(caption.get("char_captions"))[:64]]
    return joined(map(plain_text, [caption.get("base_caption"), *characters]))


def with_a1111_emphasis(text: str) -> str:
    """Return a prompt with A1111's emphasis in place of NovelAI's, and its parentheses escaped.

    Linear in the size of the text.
    """
    parts: list[tuple[str, float]] = []  # text and weight
    level, factor, at = 0, 1.0, 0
    for mark in _MARK.finditer(text):
        parts.append((text[at : mark.start()], factor * _STEP**level))
        at = mark.end()
        sign = mark[0]
        if sign in "()":
            parts.append((f"\\{sign}", factor * _STEP**level))
        elif sign in "{]":
            level = min(level + 1, 64)
        elif sign in "}[":
            level = max(level - 1, -64)
        else:
            factor = float(mark[1]) if mark[1] else 1.0
    parts.append((text[at:], factor * _STEP**level))
    return "".join(_weighted(joined_text, weight) for joined_text, weight in _runs(parts)).strip()


def _runs(parts: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Neighbours of equal weight as one."""
    runs: list[tuple[list[str], float]] = []
    for text, weight in parts:
        if text and runs and runs[-1][1] == weight:
            runs[-1][0].append(text)
        elif text:
            runs.append(([text], weight))
    return [("".join(texts), weight) for texts, weight in runs]


def _weighted(text: str, weight: float) -> str:
    """Text with its weight, spaces and commas at its ends outside."""
    inner = text.strip(" ,\n")
    shown = f"{weight:.3f}".rstrip("0").rstrip(".")
    if not inner or shown == "1":
        return text
    start = text.index(inner)
    return f"{text[:start]}({inner}:{shown}){text[start + len(inner) :]}"
