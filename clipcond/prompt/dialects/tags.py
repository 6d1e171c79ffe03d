"""A1111's extra-network tags, `<lora:name:0.8>`: taken out of the text before anything else is read."""

from __future__ import annotations

import re
from collections.abc import Collection

from clipcond.prompt.dialects.reading import Notes, number
from clipcond.prompt.items import Adapter

KINDS = ("lora", "lyco", "hypernet")
_LISTED = ("lora", "lyco")  # what a collection of adapters can name
_START = re.compile(r"<(\w+):")


def read_tags(prompt: str, notes: Notes, adapters: Collection[str] | None) -> dict[int, Adapter]:
    """The tags of a prompt, start → Adapter: `<`, a kind, `:`, then anything but `>`, then `>`."""
    tags: dict[int, Adapter] = {}
    last = prompt.rfind(">")
    at = 0
    while match := _START.search(prompt, at, last + 1):
        end = prompt.find(">", match.end(), last + 1) + 1
        if end > match.end() + 1:
            tags[match.start()] = _tag(prompt, match, end, notes, adapters)
        at = max(end, match.end())
    return tags


def _tag(prompt: str, match: re.Match[str], end: int, notes: Notes, adapters: Collection[str] | None) -> Adapter:
    start, kind = match.start(), match[1]
    name, *fields = prompt[match.end() : end - 1].split(":")
    weights = _weights(fields)
    if weights is None:
        notes.add("bad-weight", "a tag's weight is no number; 1 is used", match.end() + len(name), end - 1)
    weight, unet_weight = weights or (1.0, None)
    if kind not in KINDS:
        notes.add("unknown-tag", "tags of this kind are taken out of the text and do nothing", start, end)
    elif adapters is not None and kind in _LISTED and name not in adapters:
        notes.add("unknown-adapter", "there is no adapter of this name", match.end(), match.end() + len(name))
    return Adapter(kind=kind, name=name, weight=weight, start=start, end=end, unet_weight=unet_weight)


def _weights(fields: list[str]) -> tuple[float, float | None] | None:
    """The weight, and the denoiser's own where it has one: by place, or as `te=` and `unet=`; None for no numbers."""
    said: dict[str, float | None] = {"te": 1.0}
    for place, field in enumerate(fields[:2]):
        key, mark, value = field.partition("=")
        said[key.strip() if mark else ("te", "unet")[place]] = number(value if mark else field)
    weight, unet_weight = said["te"], said.get("unet", said["te"])
    if weight is None or unet_weight is None:
        return None
    return weight, None if unet_weight == weight else unet_weight
