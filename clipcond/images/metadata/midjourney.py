"""Midjourney: a description with the prompt, options that begin with `--`, and `Job ID: …`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from clipcond.images.metadata.draw_things import xmp_texts
from clipcond.images.metadata.image_prompt import ImagePrompt
from clipcond.images.metadata.json_text import LARGEST_PROMPT, image_prompt, joined, plain_text
from clipcond.images.metadata.more_fields import XMP

_DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"
_JOB = re.compile(r"\bJob ID:\s*([0-9a-fA-F][0-9a-fA-F-]{7,63})")
_OPTION = re.compile(r"(?:^|\s)--([a-z]+)\b")
_TELLING = frozenset({"ar", "aspect", "v", "version", "niji", "stylize", "s", "chaos", "style", "sref", "profile"})
_WEIGHT = re.compile(r"::\s*(-?\d{0,6}(?:\.\d{1,6})?)")
_URL = re.compile(r"https?://\S+")


def read_midjourney(fields: Mapping[str, str]) -> ImagePrompt | None:
    """Return Midjourney's prompt, or None. `--no` and parts with a weight below 0 are the negative prompt."""
    texts = [(name, fields[name]) for name in ("Description", "exif:ImageDescription") if name in fields]
    if XMP in fields:
        texts += [("XMP description", text) for text in xmp_texts(fields[XMP], _DESCRIPTION)]
    for field, text in texts:
        text = plain_text(text[: 2 * LARGEST_PROMPT])
        job = _JOB.search(text)
        described = text[: job.start()].strip() if job else text
        options = list(_OPTION.finditer(described))
        if job or any(option[1] in _TELLING for option in options):
            return _found(field, described, options, job[1] if job else "")
    return None


def _found(field: str, text: str, options: list[re.Match[str]], job: str) -> ImagePrompt:
    ends = [*(option.start() for option in options[1:]), len(text)][: len(options)]
    values = [(option[1], text[option.end() : end].strip()) for option, end in zip(options, ends, strict=True)]
    positive, negative = _by_weight(_URL.sub("", text[: options[0].start()] if options else text))
    excluded = [value for name, value in values if name == "no"]
    settings: dict[str, object] = {name: value for name, value in values if name != "no"}
    return image_prompt(
        tool="Midjourney",
        field=field,
        prompt=positive,
        negative_prompt=joined([negative, *excluded]),
        dialect="plain",
        settings=settings | ({"Job ID": job} if job else {}),
    )


def _by_weight(text: str) -> tuple[str, str]:
    """The parts of a multi-prompt, `a:: b::2 c::-0.5`: those with a weight of 0 or more, and the others."""
    parts: dict[bool, list[str]] = {False: [], True: []}
    at = 0
    for weight in _WEIGHT.finditer(text):
        parts[weight[1].startswith("-")].append(" ".join(text[at : weight.start()].split()))
        at = weight.end()
    parts[False].append(" ".join(text[at:].split()))
    return joined(parts[False]), joined(parts[True])
