"""Regions of a picture as JSON: a file of `generate --regions`, or what a picture carries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipcond.diffusion.regions import Region, region_of_document
from clipcond.errors import DataError, ResourceMissing
from clipcond.wording import visible
from clipcond.workflows.prompt_options import PromptOptions

_LARGEST = 16 << 20  # bytes
_KEYS = ("prompt", "negative_prompt", "regions")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionsFile:
    """A base prompt and a negative one, None where the file has none, and the regions."""

    prompt: str | None = None
    negative_prompt: str | None = None
    regions: tuple[Region, ...]


def read_regions(path: Path) -> RegionsFile:
    """Read a file: a list of regions, or an object with `regions`, `prompt` and `negative_prompt`.

    Raises ResourceMissing for a file that is not there, DataError for one that is no such JSON, and what Region raises.
    """
    if not path.is_file():
        raise ResourceMissing(f"no regions at {path}: there is no such file")
    if path.stat().st_size > _LARGEST:
        raise DataError(f"{path}: more than {_LARGEST >> 20} MiB is no file of regions")
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {visible(' '.join(str(error).split()))}") from None
    return _of_document(document, str(path), path.parent)


def regions_of_text(text: str) -> tuple[Region, ...]:
    """Read the regions that a picture carries. Raises DataError for text that is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError("the infotext's Regions are no JSON; give --regions FILE in their place") from None
    return _of_document(document, "the infotext's Regions", Path()).regions


def text_of_regions(regions: Sequence[Region]) -> str:
    """Return what `regions_of_text` reads, masks and all."""
    return json.dumps([each.to_document() for each in regions], ensure_ascii=False)


def with_all_texts(prompt: PromptOptions, regions: Sequence[Region]) -> PromptOptions:
    """Return the options with the prompts of all regions behind their own, to look for words and adapters in."""
    return replace(prompt, prompt=", ".join(filter(None, [prompt.text, *(each.prompt for each in regions)])))


def _of_document(document: Any, name: str, folder: Path) -> RegionsFile:
    top = {"regions": document} if isinstance(document, list) else document
    if not isinstance(top, dict) or not isinstance(top.get("regions"), list) or not top["regions"]:
        raise DataError(f'{name}: expected {{"prompt": …, "regions": [{{"prompt": …, "cell": "top left"}}, …]}}')
    if unknown := next((key for key in top if key not in _KEYS), None):
        raise DataError(f"{name} has {visible(unknown)!r}; known are {', '.join(_KEYS)}")
    for key in _KEYS[:2]:
        if not isinstance(top.get(key), str | None):
            raise DataError(f"{name}: {key} is no text")
    try:
        regions = tuple(region_of_document(each, at, folder) for at, each in enumerate(top["regions"], start=1))
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return RegionsFile(prompt=top.get("prompt"), negative_prompt=top.get("negative_prompt"), regions=regions)
