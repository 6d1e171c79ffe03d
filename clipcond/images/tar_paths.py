"""Paths that lead into a tar: `shard.tar/00017.jpg` is the member of that name, to be read wherever a picture is.

The members of a tar are listed when the first of them is asked for, once a process as long as the tar stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from clipcond.errors import DataError
from clipcond.images.image_source import ImageSource
from clipcond.images.tars import ENDINGS, tar_members
from clipcond.wording import visible

_INTO_A_TAR = re.compile(r"\.(?:tar|tar\.gz|tgz)[/\\\\]")
_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TarIndex:
    """The pictures and texts of a tar by name. faults: why some of them cannot be read.   problem: what ended the reading."""

    files: Mapping[str, ImageSource]
    pictures: tuple[str, ...]
    faults: Mapping[str, str]
    problem: str


def is_tar(path: Path) -> bool:
    """True for a file that has a tar's ending."""
    return path.name.endswith(ENDINGS) and os.path.isfile(path)  # noqa: PTH113 - False for names that no system takes


def tar_of(path: str | Path) -> Path | None:
    """The tar that a path leads into; None for an ordinary path."""
    if not _INTO_A_TAR.search(os.fspath(path)):  # ten thousand times a second
        return None
    return next((parent for parent in Path(path).parents if is_tar(parent)), None)


def pictures_in(tar: Path) -> list[Path]:
    """The paths of a tar's pictures in its order; the tar itself is last where it is damaged, and cannot be read."""
    index = tar_index(tar)
    return [*(tar / name for name in index.pictures), *([tar] if index.problem else [])]


def member_of(path: str | Path) -> ImageSource | None:
    """The bytes that a path leads to in a tar; None for an ordinary path.

    Raises DataError for a tar itself, for one that holds nothing of that name, and for a member that is no file of its own.
    """
    path = Path(path)
    if is_tar(path):
        raise DataError(tar_index(path).problem or f"{path} is a tar; name a picture in it")
    tar = tar_of(path)
    if tar is None:
        return None
    index = tar_index(tar)
    name = path.relative_to(tar).as_posix()
    if name not in index.files:
        raise DataError(index.faults.get(name) or f"{tar} holds no {visible(name)}" + _but(index.problem))
    return index.files[name]


def in_the_folder_of(path: Path) -> list[Path]:
    """The paths of all pictures and texts beside a member, in its tar and folder."""
    tar = tar_of(path)
    if tar is None:
        return []
    return [each for name in tar_index(tar).files if (each := tar / name).parent == path.parent]


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file, or a member of a tar, open for reading. Raises OSError, and DataError."""
    member = member_of(path)
    if member is None:
        with open(path, "rb") as file:
            yield file
    else:
        with member.stream() as stream:
            yield stream


def is_there(path: Path) -> bool:
    """True if something is at the path, a broken link too, or in a tar under that name."""
    if os.path.lexists(path):
        return True
    try:
        return member_of(path) is not None
    except DataError:
        return False


def tar_index(tar: Path) -> TarIndex:
    """The members of a tar; of a damaged one those before the damage."""
    try:
        state = tar.stat()
    except OSError as error:
        return TarIndex(files={}, pictures=(), faults={}, problem=f"cannot read {tar}: {error.strerror or error}")
    with _ONE_AT_A_TIME:
        return _index(tar, state.st_mtime_ns, state.st_size)


@cache
def _index(tar: Path, _changed: int, _size: int) -> TarIndex:
    files: dict[str, ImageSource] = {}
    pictures: dict[str, None] = {}
    faults: dict[str, str] = {}
    problem = ""
    try:
        for member in tar_members(tar):
            if member.is_picture:
                pictures[member.name] = None
            if member.own:
                files[member.name] = member.source
                faults.pop(member.name, None)
            else:
                files.pop(member.name, None)
                faults[member.name] = f"{member.source} is a link or a sparse file, not a file of its own"
    except DataError as error:
        problem = str(error)
    except OSError as error:
        problem = f"cannot read {tar}: {error.strerror or error}"
    return TarIndex(files=files, pictures=tuple(pictures), faults=faults, problem=problem)


def _but(problem: str) -> str:
    return f" ({problem})" if problem else ""
