"""Chosen pictures into a folder: copied, moved or linked, their sidecars with them, never over another file.

`plan_moves` says what would be done (a dry run is this and no more), `carry_out` does it and keeps a journal, and
`clipcond.rerank.undo` takes it back.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clipcond.errors import ClipCondError, ConfigError
from clipcond.files import copy_file, move_file, refuse_to_overwrite, writing
from clipcond.images.suffixes import SIDECARS
from clipcond.images.tar_paths import in_the_folder_of, is_there, opened, tar_of
from clipcond.rerank.journal import Journal
from clipcond.wording import first_line

_LONGEST = 255  # bytes of a file name
_AT_ONCE = 64  # steps that the journal announces together, with one wait for the disk
Action = Literal["copy", "move", "link"]
_ACTIONS = ("copy", "move", "link")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One file and the place it goes to. picture: the one that a sidecar belongs to, or the source itself."""

    action: Action
    source: Path
    target: Path
    picture: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps in order, and a reason for every picture that stays out."""

    folder: Path
    steps: tuple[Step, ...]
    skipped: tuple[tuple[Path, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """Steps that were carried out, files that stayed with the reason, and the journal, if there was anything to do."""

    done: tuple[Step, ...]
    failed: tuple[tuple[Path, str], ...]
    journal: Path | None


def plan_moves(pictures: Iterable[str | Path], folder: str | Path, action: Action, *, sidecars: bool = True) -> Plan:
    """Plan which file goes where; nothing is changed. A picture in a tar can be copied only, which writes its bytes.

    sidecars: files of the same stem in `.txt`, `.caption` or `.json` go along. Where another picture of that stem stays
    behind, it keeps its sidecar, and a copy goes. Names that are taken get a number, `name (2).png`, a picture and its
    sidecars the same one. Raises ConfigError for an unknown action and a folder that is a file.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links kept
    if action not in _ACTIONS:
        raise ConfigError(f"unknown action {action!r}; expected copy, move or link")
    if os.path.lexists(folder) and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder for the pictures")
    groups: dict[tuple[Path, str], list[Path]] = {}
    skipped = []
    for path in dict.fromkeys(Path(os.path.abspath(picture)) for picture in pictures):  # noqa: PTH100
        reason = _reason_to_skip(path, folder, action)
        if reason:
            skipped.append((path, reason))
        else:
            groups.setdefault((path.parent, path.stem), []).append(path)
    names = _Names(folder)
    listings = {parent: _listing(parent, paths[0]) if sidecars else {} for (parent, _), paths in groups.items()}
    steps: list[Step] = []
    for (parent, stem), chosen in groups.items():
        steps += _group_steps(chosen, listings[parent].get(stem, []), names, action)
    return Plan(folder=folder, steps=tuple(steps), skipped=tuple(skipped))


def carry_out(
    plan: Plan, *, journal: str | Path | None = None, events: Callable[[Step], object] | None = None
) -> Moves:
    """Carry out a plan. A file that cannot go stays where it is, with the reason; the others go.

    journal: a folder for the journal, by default the pictures' own.   events: told of each step that was done.
    Raises OSError where the folder or the journal cannot be made; then nothing was done.
    """
    if not plan.steps:
        return Moves(done=(), failed=(), journal=None)
    done: list[Step] = []
    failed: dict[Path, str] = {}
    with Journal.begin(plan.folder, plan.folder if journal is None else Path(journal)) as log:
        for start in range(0, len(plan.steps), _AT_ONCE):
            some = plan.steps[start : start + _AT_ONCE]
            log.announce([(step.action, step.source, step.target) for step in some])
            for step in some:
                reason = _without_picture(step, failed) or _carried_out(step)
                if reason:
                    failed[step.source] = reason
                    continue
                log.confirm(step.target)
                done.append(step)
                if events is not None:
                    events(step)
    return Moves(done=tuple(done), failed=tuple(failed.items()), journal=log.path)


def _without_picture(step: Step, failed: dict[Path, str]) -> str:
    return f"{step.picture.name} stays where it is" if step.picture in failed else ""


def _carried_out(step: Step) -> str:
    """Do one step; the reason if it cannot be done."""
    try:
        if tar_of(step.source) is not None:
            _extract(step.source, step.target)
        elif step.action == "copy":
            copy_file(step.source, step.target, otherwise=f"{step.source} is not copied")
        elif step.action == "move":
            move_file(step.source, step.target)
        else:
            _link(step.source, step.target)
    except ClipCondError as error:
        return str(error)
    except OSError as error:
        return first_line(error)
    return ""


def _extract(source: Path, target: Path) -> None:
    with opened(source) as member, writing(target, otherwise=f"{source} is not copied", durable=True) as file:
        shutil.copyfileobj(member, file, 1 << 20)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or a symbolic link where the file system has none or is another."""
    refuse_to_overwrite(target, f"{source} is not linked")
    if not source.is_file():
        raise FileNotFoundError(f"{source} is no longer there")
    try:
        target.hardlink_to(source)
    except FileExistsError:
        refuse_to_overwrite(target, f"{source} is not linked")
        raise
    except OSError:
        target.symlink_to(source)


def _reason_to_skip(path: Path, folder: Path, action: Action) -> str:
    if tar_of(path) is not None:
        return "" if action == "copy" and is_there(path) else "is in a tar, out of which pictures are copied only"
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError):
        return "no such file"
    if stat.S_ISLNK(mode):
        return "is a symbolic link; name the file it leads to"
    if not stat.S_ISREG(mode):
        return "is no regular file"
    return f"is in {folder} already" if folder.is_dir() and path.parent.samefile(folder) else ""


def _listing(folder: Path, picture: Path) -> dict[str, list[Path]]:
    """The files of a folder by stem, hidden ones and journals left out; of a tar those beside a picture in it."""
    found: dict[str, list[Path]] = {}
    if tar_of(picture) is not None:
        for path in in_the_folder_of(picture):
            found.setdefault(path.stem, []).append(path)
        return found
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                path = folder / entry.name
                found.setdefault(path.stem, []).append(path)
    return found


def _group_steps(chosen: Sequence[Path], beside: Sequence[Path], names: _Names, action: Action) -> Iterator[Step]:
    """Steps for pictures of one stem and their sidecars, which all keep a common stem."""
    sidecars = [path for path in beside if path.suffix.lower() in SIDECARS and path not in chosen]
    others_stay = any(path not in chosen and path not in sidecars for path in beside)
    stem = names.take(chosen[0].stem, [path.suffix for path in (*chosen, *sidecars)])
    for path in (*chosen, *sidecars):
        kind: Action = "copy" if action == "move" and path in sidecars and others_stay else action
        target = names.folder / (stem + path.suffix)
        yield Step(action=kind, source=path, target=target, picture=path if path in chosen else chosen[0])


class _Names:
    """The names that are taken in a folder, compared without case, as some file systems do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken = {name.casefold() for name in os.listdir(folder)} if folder.is_dir() else set()  # noqa: PTH208

    def take(self, stem: str, suffixes: Sequence[str]) -> str:
        """Take a stem that is free with every suffix: this one, or one with a number."""
        longest = max(len(os.fsencode(suffix)) for suffix in suffixes)
        number = 1
        while True:
            ending = f" ({number})" if number > 1 else ""
            free = _cut(stem, _LONGEST - longest - len(ending)) + ending
            wanted = {(free + suffix).casefold() for suffix in suffixes}
            if not wanted & self._taken:
                self._taken |= wanted
                return free
            number += 1


def _cut(stem: str, most: int) -> str:
    """A stem of at most so many bytes, cut between characters."""
    while len(os.fsencode(stem)) > most:
        stem = stem[:-1]
    return stem
