"""Pictures that a command line names: files, folders and patterns, each once."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"})


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
    Anything with `*`, `?` or `[` that is no existing path is a pattern (`**` as in a shell's globstar), and `~` a home.
    listed: more sources, of a program's list, whose names are taken as they are.
    """
    paths: dict[str, Path] = {}
    empty: list[str] = []
    named = ((str(source), _named(str(source), recursive)) for source in sources)
    for source, found in (*named, *((str(path), _there(path, recursive)) for path in listed)):
        if not found:
            empty.append(source)
        for path in found:
            paths.setdefault(os.path.abspath(path), path)  # noqa: PTH100 - normalised, links kept
    return Pictures(tuple(paths.values()), tuple(empty))


def _named(source: str, recursive: bool) -> list[Path]:
    path = _home_expanded(source)
    if os.path.lexists(path) or not glob.has_magic(source):
        return _there(path, recursive)
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - patterns may be absolute
    return [found for match in matches for found in _there(Path(match), recursive)]


def _there(path: Path, recursive: bool) -> list[Path]:
    """The pictures in a folder; anything else is one. No error for names that no system takes."""
    return _inside(path, recursive) if os.path.isdir(path) else [path]  # noqa: PTH112


def _home_expanded(source: str) -> Path:
    try:
        return Path(source).expanduser()
    except RuntimeError:  # `~name` without such a user is a file's name
        return Path(source)


def _inside(folder: Path, recursive: bool) -> list[Path]:
    found: list[Path] = []
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
        found += [path for path in entries if path.suffix.lower() in SUFFIXES and path not in folders]
        for path in folders if recursive else ():
            (linked if path.is_symlink() else below).append(path)
    return sorted(found)
