"""Pictures that a command line names: files, folders, tars and patterns, each once."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clipcond.images.suffixes import PICTURES
from clipcond.images.tar_paths import is_tar, pictures_in
from clipcond.images.tars import ENDINGS, written_out


@dataclass(frozen=True, slots=True)
class Pictures:
    """Paths in the order given (folders and patterns sorted), and the sources that held no picture."""

    paths: tuple[Path, ...]
    empty: tuple[str, ...]


def find_pictures(sources: Iterable[str | Path], *, listed: Iterable[Path] = (), recursive: bool = False) -> Pictures:
    """Expand sources to pictures.

    A file stands for itself whatever its suffix, and one that does not exist too: it becomes an error where it is read.
    A folder stands for the pictures in it, by suffix, hidden ones left out; recursive: and in the folders below. Linked
    folders are followed, each folder once. A folder that cannot be read and a link to nothing stand for themselves.
    A tar stands for the pictures in it, `shard.tar/00017.jpg`, and so does a folder of tars that holds no other picture; a
    damaged tar stands for itself behind the pictures before the damage.
    Anything with `*`, `?` or `[` that is no existing path is a pattern (`**` as in a shell's globstar), `~` a home, and so are
    groups in braces in a tar's name, `train-{000..012}.tar`. Raises DataError for such a group that names none or too many.
    listed: more sources, of a program's list, whose names are taken as they are.
    """
    paths: dict[str, Path] = {}
    empty: list[str] = []
    named = ((str(source), _named(str(source), recursive)) for source in sources)
    for source, found in (*named, *((str(path), _all_of(path, recursive)) for path in listed)):
        if not found:
            empty.append(source)
        for path in found:
            paths.setdefault(os.path.abspath(path), path)  # noqa: PTH100 - normalised, links kept
    return Pictures(tuple(paths.values()), tuple(empty))


def _named(source: str, recursive: bool) -> list[Path]:
    path = _home_expanded(source)
    if os.path.lexists(path):
        return _all_of(path, recursive)
    if "{" in source and source.endswith(ENDINGS):
        return [found for name in written_out(str(path)) for found in _matches(name, recursive)]
    return _matches(str(path), recursive)


def _matches(pattern: str, recursive: bool) -> list[Path]:
    if not glob.has_magic(pattern) or os.path.lexists(pattern):
        return _all_of(Path(pattern), recursive)
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - patterns may be absolute
    return [found for match in matches for found in _all_of(Path(match), recursive)]


def _all_of(path: Path, recursive: bool) -> list[Path]:
    """The pictures that one path stands for. No error for names that no system takes."""
    if os.path.isdir(path):  # noqa: PTH112 - False, and no error, for names that no system takes
        return _inside(path, recursive)
    return [*pictures_in(path)] if is_tar(path) else [path]


def _home_expanded(source: str) -> Path:
    try:
        return Path(source).expanduser()
    except RuntimeError:  # `~name` without such a user is a file's name
        return Path(source)


def _inside(folder: Path, recursive: bool) -> list[Path]:
    found, tars = list[Path](), list[Path]()
    below, linked, met = [folder], list[Path](), set[str]()
    while below or linked:
        current = below.pop() if below else linked.pop(0)  # links last: a folder goes by its own name where it has two
        real = os.path.realpath(current)
        if real in met:
            continue
        met.add(real)
        try:
            entries = [Path(entry.path) for entry in os.scandir(current) if not entry.name.startswith(".")]
        except OSError:
            found.append(current)
            continue
        folders = [path for path in sorted(entries) if os.path.isdir(path)]  # noqa: PTH112
        found += [path for path in entries if path.suffix.lower() in PICTURES and path not in folders]
        tars += [path for path in entries if is_tar(path)]
        for path in folders if recursive else ():
            (linked if path.is_symlink() else below).append(path)
    return sorted(found) or [path for tar in sorted(tars) for path in pictures_in(tar)]
