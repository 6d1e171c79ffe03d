"""Which pictures a command line means: files, folders and patterns, each once."""

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
    A folder stands for the pictures in it, by suffix, hidden ones left out; recursive: and in the folders below.
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
    path = Path(source).expanduser()
    if path.is_dir():
        yield from _inside(path, recursive)
    elif path.exists() or not glob.has_magic(source):
        yield path
    else:
        for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 - patterns may be absolute
            if Path(match).is_dir():
                yield from _inside(Path(match), recursive)
            else:
                yield Path(match)


def _inside(folder: Path, recursive: bool) -> list[Path]:
    inner = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(
        path
        for path in inner
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
