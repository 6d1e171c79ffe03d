"""Names of files in a list: each ended by NUL, as `find -print0` and `clipcond rerank --print0` write them, or one a line.

A list that holds a NUL is of the first kind, so that a name may hold a line break; one name with its NUL is enough.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from clipcond.errors import DataError, ResourceMissing

LARGEST = 64 << 20  # bytes
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class PathList:
    """Paths in the list's order, and the number of names that are empty."""

    paths: tuple[Path, ...]
    empty: int = 0


def read_path_list(source: str) -> PathList:
    """Read a list from a file, a pipe, or standard input (`-`).

    Raises ResourceMissing for a file that is not there, DataError for one that cannot be read, is too large, or names
    nothing.
    """
    name = "standard input" if source == "-" else source
    try:
        if source == "-":
            content = sys.stdin.buffer.read(LARGEST + 1)
        else:
            with open(source, "rb") as file:
                content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise ResourceMissing(f"{source}: no such file; give a list of names, or - for standard input") from None
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror or error}") from error
    if len(content) > LARGEST:
        raise DataError(f"{name}: more than {LARGEST >> 20} MiB is no list of names")
    found = parse_path_list(content)
    if not found.paths:
        raise DataError(f"{name} names no file; expected names, each ended by NUL (find -print0) or one a line")
    return found


def parse_path_list(content: bytes) -> PathList:
    """Take a list apart. Names are bytes of the file system; empty lines are no names, empty names before a NUL count."""
    if b"\0" in content:
        names = content.split(b"\0")
        if not names[-1]:
            del names[-1]
        paths = tuple(Path(os.fsdecode(name)) for name in names if name)
        return PathList(paths, len(names) - len(paths))
    lines = content.removeprefix(_BYTE_ORDER_MARK).split(b"\n")
    return PathList(tuple(Path(os.fsdecode(name)) for line in lines if (name := line.removesuffix(b"\r"))))
