"""Moves taken back, from their journal: every picture where it was, and nothing lost or overwritten on the way."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clipcond.errors import ClipCondError, DataError
from clipcond.files import UNFINISHED, move_file
from clipcond.images.tar_paths import is_there, opened, tar_of
from clipcond.rerank.journal import Announced, Record, latest_journal, read_journal
from clipcond.wording import first_line

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """Steps that were taken back, and files that stay with the reason. The journal goes when nothing stays."""

    journal: Path
    restored: tuple[Announced, ...]
    kept: tuple[tuple[Path, str], ...]


def undo(place: str | Path) -> Undone:
    """Take back the moves of a journal, or the last ones of a folder.

    A moved picture goes back unless something has appeared in its old place; a copy or link goes unless it is the only
    one that is left of its content. May be repeated, also after a kill. Raises DataError where there is no journal.
    """
    record = read_journal(_journal_of(Path(os.path.abspath(place))))  # noqa: PTH100
    restored: list[Announced] = []
    kept: list[tuple[Path, str]] = []
    for step in reversed(record.steps):
        try:
            reason = _take_back(step)
        except ClipCondError as error:
            reason = str(error)
        except OSError as error:
            reason = first_line(error)
        if reason:
            kept.append((step.target, reason))
        elif reason is not None:
            restored.append(step)
    _remove_unfinished(record)
    if not kept:
        record.path.unlink(missing_ok=True)
        for folder in reversed(record.made):
            with suppress(OSError):  # somebody else's files are in it
                folder.rmdir()
    return Undone(journal=record.path, restored=tuple(reversed(restored)), kept=tuple(reversed(kept)))


def _journal_of(place: Path) -> Path:
    if not os.path.lexists(place):
        raise DataError(
            f"there is no {place}; name the folder that pictures were moved to, if it was not undone before"
        )
    if not place.is_dir():
        return place
    found = latest_journal(place)
    if found is None:
        raise DataError(f"{place} holds no journal of moves; there is nothing to undo")
    return found


def _take_back(step: Announced) -> str | None:
    """Take one step back. Returns a reason to keep the file, an empty text, or None where nothing was to be done."""
    source, target = is_there(step.source), os.path.lexists(step.target)
    if not target:
        lost = step.action == "move" and not source and step.done
        return f"is gone, and so is {step.source}" if lost else None
    if not source:
        if step.action != "move" and not _leads_to(step.target, step.source):
            return f"is the only one left, {step.source} is gone" if step.done else None
        if step.action != "move":
            step.target.unlink()
            return ""
        step.source.parent.mkdir(parents=True, exist_ok=True)
        move_file(step.target, step.source)
        return ""
    if _leads_to(step.target, step.source) or _equal(step.target, step.source):
        step.target.unlink()  # a copy, a link, or a move that a kill cut off between its two halves
        return ""
    if not step.done:  # the step was never taken: this is a file of somebody else
        return None
    if step.action == "move":
        return f"stays, since something is in its old place {step.source}"
    return f"stays, since it differs from {step.source}"


def _leads_to(target: Path, source: Path) -> bool:
    """True for a symbolic link to the source, whether that is there or not."""
    return target.is_symlink() and os.readlink(target) == str(source)  # noqa: PTH115 - as it is written


def _equal(one: Path, other: Path) -> bool:
    """True if two regular files, or a file and a tar's member, have the same bytes; a link to the other is not the same."""
    in_tar = tar_of(other) is not None
    if one.is_symlink() or other.is_symlink() or not one.is_file() or not (in_tar or other.is_file()):
        return False
    if not in_tar and one.samefile(other):
        return True
    if not in_tar and one.stat().st_size != other.stat().st_size:
        return False
    with open(one, "rb") as first, opened(other) as second:
        while block := first.read(_BLOCK):
            if block != second.read(_BLOCK):
                return False
        return not second.read(1)


def _remove_unfinished(record: Record) -> None:
    """Remove what a kill left of a copy, in the folder and where it was taken back to."""
    starts: dict[Path, set[str]] = {}
    for path in [path for step in record.steps for path in (step.target, step.source)]:
        starts.setdefault(path.parent, set()).add(f".{path.name[:100]}.")
    for folder, names in starts.items():
        with suppress(OSError):
            for each in folder.glob(f".*{UNFINISHED}"):
                if any(each.name.startswith(name) for name in names):
                    each.unlink(missing_ok=True)
