"""Prompts with their settings, as A1111 and its relatives write them: pasted, in a text file, or in a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from clipcond.errors import DataError, ImageError, OptionsError, ResourceMissing
from clipcond.prompt.infotext import Infotext, parse_infotext, recognise_infotext
from clipcond.prompt.plan import DIALECTS
from clipcond.wording import visible

A1111 = "a1111"
_LARGEST = 1 << 20  # bytes of a text
_STARTS_OF_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"II*\0", b"MM\0*", b"BM")
_OUR_OWN = frozenset(
    {
        "Prompt dialect",
        "Prompt weighting",
        "Prompt chunking",
        "Prompt pooled",
        "Prompt lengths",
        "Regions",
        "Prompt operations",
    }
)
_READ = frozenset({"Steps", "CFG scale", "Seed", "Clip skip", "Prompt 2", "Prompt 3", *_OUR_OWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingSettings:
    """The settings of an infotext that a picture is drawn with; None where it has none. ignored: names of the others."""

    steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    clip_skip: int | None = None
    ignored: tuple[str, ...] = ()


def may_be_infotext(text: str) -> bool:
    """Return True if it is worth looking closer, in no time."""
    return ":" in text and ("Steps:" in text or "negative prompt" in text.lower())


def pasted_infotext(text: str) -> Infotext | None:
    """Return a pasted infotext, taken apart; None for a prompt that is none."""
    return recognise_infotext(text) if may_be_infotext(text) else None


def read_infotext(source: str) -> Infotext:
    """Read the infotext of a text file, a picture, or standard input (`-`).

    Raises ResourceMissing for a file that is not there, DataError for text that is not UTF-8 or far too long, ImageError
    for a picture that cannot be read or holds no prompt.
    """
    if source == "-":
        return _of_bytes(sys.stdin.buffer.read(_LARGEST + 1), "standard input")
    path = Path(source)
    if not path.is_file():
        raise ResourceMissing(f"{path}: no such file; give a picture, a text file with an infotext, or -")
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    return _of_picture(path) if content.startswith(_STARTS_OF_PICTURES) else _of_bytes(content, str(path))


def _of_picture(path: Path) -> Infotext:
    from clipcond.images.decode import open_image
    from clipcond.images.metadata.reading import read_metadata

    with open_image(path) as image:
        found = read_metadata(image)
    if found.infotext is None:
        raise ImageError(f"{path}: {found.reason}")
    return found.infotext


def _of_bytes(content: bytes, name: str) -> Infotext:
    if len(content) > _LARGEST:
        raise DataError(f"{name}: more than {_LARGEST >> 20} MiB is no infotext")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(
            f"{name}: neither a picture nor UTF-8 text; give a picture, or save the text as UTF-8"
        ) from None
    infotext = parse_infotext(text)
    if infotext.problem:
        raise DataError(f"{name}: {infotext.problem}")
    return infotext


def dialect_of(infotext: Infotext) -> str:
    """Return the dialect of an infotext's prompts: the one that clipcond wrote beside them, else A1111's."""
    named = infotext.settings.get("Prompt dialect", "")
    return named if named in DIALECTS else A1111


def operations_of(infotext: Infotext) -> tuple[str, ...]:
    """Return the operations on the conditioning that clipcond wrote. Raises OptionsError for a setting that is no list."""
    written = infotext.settings.get("Prompt operations", "[]")
    try:
        found = json.loads(written)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise OptionsError(f"the infotext's Prompt operations is {visible(written)!r}, which is no list of operations")
    return tuple(found)


def drawing_settings(infotext: Infotext) -> DrawingSettings:
    """Return the settings that a picture is drawn with. Raises OptionsError for one that is no number."""
    settings = infotext.settings
    skip = _number(settings, "Clip skip", int)
    return DrawingSettings(
        steps=_number(settings, "Steps", int),
        guidance_scale=_number(settings, "CFG scale", float),
        seed=_number(settings, "Seed", int),
        clip_skip=None if skip is None else max(skip - 1, 0),  # its writers count from 1
        ignored=tuple(_ignored(settings)),
    )


_Number = TypeVar("_Number", int, float)


def _number(settings: Mapping[str, str], name: str, kind: Callable[[str], _Number]) -> _Number | None:
    if name not in settings:
        return None
    try:
        return kind(settings[name])
    except ValueError:
        raise OptionsError(f"the infotext's {name} is {settings[name]!r}, which is no number") from None


def _ignored(settings: Mapping[str, str]) -> Iterator[str]:
    return (name for name in settings if name not in _READ)


def taken_apart(infotext: Infotext) -> str:
    """Say in one line into what an infotext was taken apart."""
    parts = ["prompt"]
    if infotext.negative_prompt:
        parts.append("negative prompt")
    if infotext.settings:
        parts.append(f"{len(infotext.settings)} setting{'' if len(infotext.settings) == 1 else 's'}")
    return f"an infotext: {', '.join(parts)}, read as {dialect_of(infotext)}"
