"""The journal of moves: JSON lines that say what is about to be done, so that it can be taken back after a kill.

    {"clipcond": "moves", "version": 1, "folder": "/home/me/best", "made": ["/home/me/best"]}
    {"action": "move", "source": "/home/me/run/a.png", "target": "a.png"}
    {"done": "a.png"}

A line about a step is on the disk before the step. The line that a kill tore is the last and says nothing yet.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from clipcond.errors import DataError

JOURNAL_PREFIX, JOURNAL_SUFFIX = ".clipcond-moves-", ".jsonl"
_LARGEST = 1 << 28  # bytes of a journal: a million moves
_VERSION = 1
_ACTIONS = ("copy", "move", "link")


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A step that a journal announces. done: it says also that the step was carried out."""

    action: str
    source: Path
    target: Path
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Contents of a journal. made: folders that were made for the pictures, the outermost first."""

    path: Path
    folder: Path
    made: tuple[Path, ...]
    steps: tuple[Announced, ...]


class Journal:
    """A journal that is being written."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle

    @classmethod
    def begin(cls, folder: Path, place: Path) -> Journal:
        """Make the folder and a journal in `place`, with a number of its own. Raises OSError."""
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        place.mkdir(parents=True, exist_ok=True)
        number = max([_number_of(path) for path in _journals(place)], default=0) + 1
        while True:
            path = place / f"{JOURNAL_PREFIX}{number:04d}{JOURNAL_SUFFIX}"
            try:
                journal = cls(path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666))
                break
            except FileExistsError:
                number += 1
        made = [str(each) for each in reversed(missing)]
        journal._write([{"clipcond": "moves", "version": _VERSION, "folder": str(folder), "made": made}], durable=True)
        folder.mkdir(parents=True, exist_ok=True)
        return journal

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)

    def announce(self, steps: Sequence[tuple[str, Path, Path]]) -> None:
        """Say what is about to be done: action, source, target. On the disk when this returns."""
        lines = [{"action": action, "source": str(source), "target": target.name} for action, source, target in steps]
        self._write(lines, durable=True)

    def confirm(self, target: Path) -> None:
        """Say that a step was done."""
        self._write([{"done": target.name}])

    def _write(self, lines: Sequence[Mapping[str, Any]], *, durable: bool = False) -> None:
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()  # ASCII: any file name survives
        while content:
            content = content[os.write(self._handle, content) :]
        if durable:
            os.fsync(self._handle)


def latest_journal(place: Path) -> Path | None:
    """Return the journal of a folder that was begun last, or None."""
    return max(_journals(place), key=_number_of, default=None)


def read_journal(path: Path) -> Record:
    """Read a journal. Raises DataError where it is none, or names places that none of ours would."""
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} is too large for a journal of moves")
        lines = [_line(line) for line in path.read_bytes().split(b"\n")]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    head = lines[0]
    if head.get("clipcond") != "moves" or not isinstance(head.get("folder"), str):
        raise DataError(f"{path} is no journal of moves")
    if head.get("version") != _VERSION:
        raise DataError(f"{path} was written by another version of clipcond (expected version {_VERSION})")
    made = head.get("made", [])
    folder = Path(head["folder"])
    known = (folder, *folder.parents)
    return Record(
        path=path,
        folder=folder,
        made=tuple(Path(each) for each in made if isinstance(each, str) and Path(each) in known),
        steps=tuple(_steps(path, folder, lines[1:])),
    )


def _steps(path: Path, folder: Path, lines: Sequence[Mapping[str, Any]]) -> list[Announced]:
    done = {line["done"] for line in lines if isinstance(line.get("done"), str)}
    steps = []
    for line in lines:
        action, source, name = line.get("action"), line.get("source"), line.get("target")
        if not (isinstance(action, str) and isinstance(source, str) and isinstance(name, str)):
            continue
        # a journal may come with a folder of somebody else's pictures: a plain name, and the kind of file it was
        plain = name == Path(name).name and Path(source).is_absolute() and Path(source).suffix == Path(name).suffix
        if action not in _ACTIONS or not plain:
            raise DataError(f"{path} names a move that clipcond does not make: {action} {source!r} to {name!r}")
        steps.append(Announced(action=action, source=Path(source), target=folder / name, done=name in done))
    return steps


def _line(line: bytes) -> Mapping[str, Any]:
    """A line's values; none for the torn one and for what is no object."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _journals(place: Path) -> list[Path]:
    return [path for path in place.glob(f"{JOURNAL_PREFIX}*{JOURNAL_SUFFIX}") if _number_of(path)]


def _number_of(path: Path) -> int:
    digits = path.name[len(JOURNAL_PREFIX) : -len(JOURNAL_SUFFIX)]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else 0
