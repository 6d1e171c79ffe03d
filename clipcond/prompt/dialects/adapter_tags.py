"""A1111's extra-network tags, `<lora:name:0.8>`: taken out of the text before weights are read."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from clipcond.prompt.dialects.reading import FindingCollector, python_float
from clipcond.prompt.items import Adapter

KINDS = ("lora", "lyco", "hypernet")
_LISTED = ("lora", "lyco")  # kinds that a collection of adapters can name
_FIELDS = ("te", "unet", "dyn")  # in their order, where they have no name
_START = re.compile(r"<(\w+):")


def read_tags(
    prompt: str, findings: FindingCollector, adapters: Collection[str] | None, start: int, stop: int
) -> dict[int, Adapter]:
    """Return the tags of prompt[start:stop], start → Adapter: `<`, a kind, `:`, then anything but `>`, then `>`."""
    tags: dict[int, Adapter] = {}
    last = prompt.rfind(">", start, stop)
    at = start
    while match := _START.search(prompt, at, last + 1):
        end = prompt.find(">", match.end(), last + 1) + 1
        if end > match.end() + 1:
            tags[match.start()] = _tag(prompt, match, end, findings, adapters)
        at = max(end, match.end())
    return tags


def _tag(
    prompt: str, match: re.Match[str], end: int, findings: FindingCollector, adapters: Collection[str] | None
) -> Adapter:
    start, kind = match.start(), match[1]
    name, *fields = prompt[match.end() : end - 1].split(":")
    behind = match.end() + len(name)
    if kind not in KINDS:
        findings.add("unknown-tag", "tags of this kind are taken out of the text and do nothing", start, end)
    elif adapters is not None and kind in _LISTED and name not in adapters:
        findings.add("unknown-adapter", "there is no adapter of this name", match.end(), behind)
    read = _Fields(findings)
    read.read(fields, behind + 1)
    weight = read.values.get("te", 1.0)
    unet_weight = read.values.get("unet", weight)
    rank = read.values.get("dyn")
    return Adapter(
        kind=kind,
        name=name,
        weight=weight,
        start=start,
        end=end,
        unet_weight=None if unet_weight == weight else unet_weight,
        dyn=None if rank is None else int(rank),
    )


@dataclass(slots=True)
class _Fields:
    """The fields of a tag behind its name: by place, or as `te=`, `unet=` and `dyn=`; a name wins over a place."""

    findings: FindingCollector
    values: dict[str, float] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)

    def read(self, fields: Sequence[str], at: int) -> None:
        """Read fields, the first of which starts at `at`. A bad one changes nothing and is noted."""
        placed = 0
        for text in fields:
            key, mark, value = text.partition("=")
            name = key.strip() if mark else "".join(_FIELDS[placed : placed + 1])
            placed += not mark
            self._read(name, value if mark else text, bool(mark), at, at + len(text))
            at += len(text) + 1

    def _read(self, name: str, value: str, named: bool, start: int, end: int) -> None:
        number = python_float(value)
        if name not in _FIELDS or (name in self.named and not named):
            self._unused("this field of a tag changes nothing", start, end)
        elif number is None or (name == "dyn" and not number.is_integer()):
            self.findings.add("bad-weight", "a tag's field is no number; it changes nothing", start - 1, end)
        else:
            if name == "dyn":
                self._unused(
                    "a tag's rank is kept with it, and not applied: clipcond adds the whole adapter", start, end
                )
            self.values[name] = number
            self.named |= {name} if named else set()

    def _unused(self, message: str, start: int, end: int) -> None:
        if end > start:
            self.findings.add("tag-field-unused", message, start, end)
