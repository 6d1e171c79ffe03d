"""Pictures that a command line names: files, folders and patterns, each once."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class Pictures:
    """Paths in the order given (folders and patterns sorted), and the sources that held no picture."""

    paths: tuple[Path, ...]
    empty: tuple[str, ...]


def find_pictures(sources: Iterable[str | Path], *, recursive: bool = False) -> Pictures:
    """Expand sources to pictures.

    A file stands for itself whatever its suffix, and one that does not exist too: it becomes an error where it is read.
    A folder stands for the pictures in it, by suffix, hidden ones left out; recursive: and in the folders below. Linked
    folders are followed, each folder once. A folder that cannot be read and a link to nothing stand for themselves.
    Anything with `*`, `?` or `[` that is no existing path is a pattern (`**` as in a shell's globstar).
    """
    paths: dict[str, Path] = {}
    empty: list[str] = []
    for source in sources:
        found = list(_expand(str(source), recursive))
        if not found:
            empty.append(str(source))
        for path in found:
            paths.setdefault(os.path.abspath(path), path)  # noqa: PTH100 - normalised, links kept
    return Pictures(tuple(paths.values()), tuple(empty))


def _expand(source: str, recursive: bool) -> Iterator[Path]:
    path = _home_expanded(source)
    if os.path.isdir(path):  # noqa: PTH112 - False, and no error, for names that no system takes
        yield from _inside(path, recursive)
    elif os.path.lexists(path) or not glob.has_magic(source):
        yield path
    else:
        for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 - patterns may be absolute
            if os.path.isdir(match):  # noqa: PTH112
                yield from _inside(Path(match), recursive)
            else:
                yield Path(match)


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
