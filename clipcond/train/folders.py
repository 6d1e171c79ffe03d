"""A folder of pictures with their texts beside them, kohya's folders with repeats among them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from clipcond.errors import DataError
from clipcond.images.image_source import ImageSource
from clipcond.images.suffixes import PICTURES
from clipcond.train.indexed import Indexed, Relations
from clipcond.train.rows import EMPTY, MISSING, BadRows, RowError
from clipcond.train.sidecars import CAPTIONS, GROUP, LONGEST, NEGATIVE, Said, has_captions, read_said
from clipcond.wording import visible

_REPEATS = re.compile(r"(\d{1,3})_(.+)")  # `10_red fox`; four digits are a year
_NOTED = 5  # folders that a note names


class _Folder:
    """The files of one folder by name, hidden ones left out, and how often its pictures are shown."""

    def __init__(self, path: Path, names: list[str], *, below: bool) -> None:
        self.path = path
        self.names = sorted(name for name in names if not name.startswith("."))
        self._there = frozenset(self.names)
        repeats = _REPEATS.fullmatch(path.name) if below else None
        self.repeats, self.words = (int(repeats[1]), repeats[2]) if repeats else (1, "")

    def pictures(self) -> Iterator[tuple[str, str]]:
        """Yield the name and the stem of each picture that is not the negative of another."""
        all_of = [(name, *os.path.splitext(name)) for name in self.names]  # noqa: PTH122 - names, not paths
        found = [(name, stem) for name, stem, ending in all_of if ending.lower() in PICTURES]
        stems = {stem for _, stem in found}
        for name, stem in found:
            if not (stem.endswith(NEGATIVE) and stem.removesuffix(NEGATIVE) in stems):
                yield name, stem

    def alone(self) -> list[str]:
        """Return the captions, by their endings, that stand beside no picture."""
        stems = {stem for _, stem in self.pictures()}
        endings = [f"{NEGATIVE}.txt", f"{GROUP}.txt", ".txt", ".caption"]
        cut = {name: next((name[: -len(end)] for end in endings if name.endswith(end)), None) for name in self.names}
        return [str(self.path / name) for name, stem in cut.items() if stem is not None and stem not in stems]

    def beside(self, stem: str) -> dict[str, bytes]:
        """Return the texts of a picture by what follows its stem. Raises DataError for one that cannot be read."""
        endings = [*CAPTIONS, f"{NEGATIVE}.txt", f"{GROUP}.txt"]
        return {ending: _read(self.path / (stem + ending)) for ending in endings if stem + ending in self._there}

    def negatives_of(self, stem: str, said: Said) -> tuple[ImageSource, ...]:
        """Return the pictures that are near to one and wrong. Raises DataError for one that is not there."""
        for name in said.negative_images:
            if not (self.path / name).is_file():
                raise RowError(visible(f"{self.path / stem}.json names {name}, which is not in {self.path}"), MISSING)
        own = [f"{stem}{NEGATIVE}{ending}" for ending in sorted(PICTURES)]
        names = [*said.negative_images, *(name for name in own if name in self._there)]
        return tuple(ImageSource(self.path / name) for name in dict.fromkeys(names))


def index_folder(folder: Path, bad: BadRows, notes: list[str]) -> list[Indexed]:
    """Return the pictures of a folder and of those in it, each with the captions beside it; add notes.

    A folder in it that is named as kohya's scripts want it, `10_red fox`, shows its pictures ten times an epoch, and
    names those that have no caption of their own; `0_…` leaves its pictures out.
    """
    found: list[Indexed] = []
    told: list[str] = []
    alone: list[str] = []
    named = 0
    for each in _folders(folder):
        if each.words:
            told.append(
                f"{each.path.name} counts {each.repeats} times" if each.repeats else f"{each.path.name} is left out"
            )
        for name, stem in each.pictures() if each.repeats else ():
            try:
                pair = _pair(each, name, stem)
            except DataError as error:
                bad.leave_out(error)
                continue
            named += pair.captions == (each.words,)
            found.append(pair)
        alone += each.alone()
    if alone:
        notes.append(
            visible(alone[0] + (f" and {len(alone) - 1} more have" if len(alone) > 1 else " has") + " no picture")
        )
    if told:
        more = f" and {len(told) - _NOTED} more such folders" if len(told) > _NOTED else ""
        notes.append(visible(f"repeats as of kohya's scripts: {', '.join(told[:_NOTED])}{more}"))
    if named:
        notes.append(f"{named} pictures without a caption take the name of their folder")
    return found


def holds_pictures(folder: Path) -> bool:
    """True if a folder, or one in it, holds a picture."""
    return any(next(each.pictures(), None) for each in _folders(folder))


def _folders(top: Path) -> Iterator[_Folder]:
    for path, below, names in os.walk(top):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield _Folder(Path(path), names, below=Path(path).parent == top)


def _pair(folder: _Folder, name: str, stem: str) -> Indexed:
    """Return a picture with what is said beside it. Raises DataError where no caption is."""
    if not (folder.path / name).is_file():  # a pipe would wait for ever
        raise RowError(visible(f"{folder.path / name} is no regular file, not a picture"), MISSING)
    files = folder.beside(stem)
    if has_captions(files):
        said = read_said(files, str(folder.path / stem))
    elif folder.words:
        said = Said(captions=(folder.words,))
    else:
        names = " or ".join(stem + ending for ending in CAPTIONS)
        raise RowError(visible(f"{folder.path / name} has no caption: there is no {names} beside it"), EMPTY)
    relations = Relations(negatives=said.negatives, negative_images=folder.negatives_of(stem, said), groups=said.groups)
    return Indexed(
        image=ImageSource(folder.path / name), captions=said.captions, relations=relations, repeats=folder.repeats
    )


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise DataError(visible(f"{path} is no regular file, not a caption"))
        with path.open("rb") as file:
            return file.read(LONGEST + 1)
    except OSError as error:
        raise DataError(visible(f"cannot read {path}: {error.strerror or error}")) from error
