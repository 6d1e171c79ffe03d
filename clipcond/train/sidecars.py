"""Texts that stand beside a picture, in a folder or in a tar: captions, hard negatives, groups.

| beside `a.png` | holds |
|---|---|
| `a.txt`, `a.caption` | captions, one a line |
| `a.json` | `caption` or `captions`; `negative(s)`, `negative_image(s)`, `group` |
| `a.negative.txt` | captions that are near and wrong, one a line |
| `a.group.txt` | names that pictures share which belong together, one a line |
| `a.negative.png` | a picture that is near and wrong |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clipcond.errors import DataError
from clipcond.train.rows import ENCODING, RowError, caption_fault, captions_of, optional_of, problem_with
from clipcond.train.tables import parsed_json
from clipcond.wording import visible

CAPTIONS = (".txt", ".caption", ".json")  # endings, the first that is there holds the captions
NEGATIVE, GROUP = ".negative", ".group"
LONGEST = 1 << 20  # bytes of a caption's file


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The texts beside a picture; negative_images are names of files beside it."""

    captions: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    negative_images: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


def has_captions(files: Mapping[str, bytes]) -> bool:
    """True if some of the files beside a picture may hold captions."""
    return any(ending in files for ending in CAPTIONS)


def read_said(files: Mapping[str, bytes], stem: str) -> Said:
    """Read the texts beside a picture.

    files: their bytes by what follows the picture's stem, such as `.txt` or `.negative.txt`; one holds captions.
    stem: for messages. A `.json` beside a `.txt` is read for the rest alone, and may be no JSON.
    Raises DataError for a caption that is empty or missing, and for what is no UTF-8.
    """
    ending = next(each for each in CAPTIONS if each in files)
    record = _record(files, stem, needed=ending == ".json")
    where = visible(stem + ending)
    captions = captions_of(record, where) if ending == ".json" else _lines(files[ending], where)
    if fault := caption_fault(where, captions, "the caption"):
        raise fault
    more = optional_of(record, visible(f"{stem}.json"))
    beside = {name: _lines(files.get(f"{name}.txt", b""), visible(f"{stem}{name}.txt")) for name in (NEGATIVE, GROUP)}
    said = Said(
        captions=captions, negatives=(*more["negatives"], *beside[NEGATIVE]), negative_images=more["negative_images"],
        groups=(*more["groups"], *beside[GROUP]),
    )  # fmt: skip
    for text in (*said.captions, *said.negatives, *said.negative_images, *said.groups):
        if problem := problem_with(text):
            raise RowError(f"{where}: {problem}", ENCODING)
    return said


def _record(files: Mapping[str, bytes], stem: str, *, needed: bool) -> object:
    where = visible(f"{stem}.json")
    try:
        return parsed_json(_text(files[".json"], where), where) if ".json" in files else None
    except DataError:
        if needed:
            raise
        return None


def _lines(content: bytes, where: str) -> tuple[str, ...]:
    return tuple(stripped for line in _text(content, where).splitlines() if (stripped := line.strip()))


def _text(content: bytes, where: str) -> str:
    if len(content) > LONGEST:
        raise DataError(f"{where}: longer than {LONGEST >> 20} MiB, which is no caption")
    return content.decode("utf-8-sig", "surrogateescape")
