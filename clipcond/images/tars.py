"""WebDataset tars: which files they are, and the pictures and texts in one.

Nothing is allocated by what a header claims: sizes are held against the file's own before anything is read.
"""

from __future__ import annotations

import atexit
import glob
import gzip
import posixpath
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, BinaryIO

from clipcond.errors import DataError
from clipcond.images.image_source import ImageSource
from clipcond.images.suffixes import PICTURES, SIDECARS
from clipcond.wording import first_line, visible

ENDINGS = (".tar", ".tar.gz", ".tgz")
_MOST_SHARDS = 100_000
_LONGEST_HEADER = 1 << 20  # bytes of a pax header or of a long name
_MOST_UNPACKED = 100  # times the size of a compressed tar, beside 64 MiB


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def find_shards(pattern: str) -> list[Path]:
    """Return the tars that a path, a glob or a brace pattern (`train-{000..012}.tar`) names. Raises DataError."""
    if Path(pattern).is_file():
        return [Path(pattern)]
    shards: dict[Path, None] = {}
    for name in written_out(pattern):
        found = sorted(glob.glob(name)) if glob.has_magic(name) else [name]  # noqa: PTH207  (a pattern may be absolute)
        if not found:
            raise DataError(f"no file matches {name}")
        shards.update((Path(path), None) for path in found)
    for shard in shards:
        if not shard.is_file():
            raise DataError(f"{shard} does not exist" + (f", which {pattern} names" if len(shards) > 1 else ""))
    return list(shards)


def written_out(pattern: str) -> list[str]:
    """Write out `{000..012}` and `{a,b}` of a pattern, in order; what is no such group stays as it is. Raises DataError."""
    names = list(islice(_braces(pattern), _MOST_SHARDS + 1))
    if not names:
        raise DataError(f"{pattern} names no file: its numbers run backwards")
    if len(names) > _MOST_SHARDS:
        raise DataError(f"{pattern} names more than {_MOST_SHARDS:,} tars")
    return names


def _braces(pattern: str) -> Iterator[str]:
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        yield pattern
        return
    before, inside, behind = pattern[: found.start()], found[1], pattern[found.end() :]
    numbers = re.fullmatch(r"(\d{1,12})\.\.(\d{1,12})", inside)
    if numbers:
        first, last = numbers.groups()
        width = len(first) if first.startswith("0") else 0
        parts: Any = (str(number).zfill(width) for number in range(int(first), int(last) + 1))
    elif "," in inside:
        parts = inside.split(",")
    else:
        parts = (f"\0{inside}\1",)  # no pattern: stays as it is
    for part in parts:
        for name in _braces(before + part + behind):
            yield name.replace("\0", "{").replace("\1", "}")


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class TarMember:
    """A picture or a text of a tar. name: without `.` and `..`.   own: it has bytes of its own, being no link or sparse file."""

    name: str
    source: ImageSource
    own: bool

    @property
    def stem(self) -> str:
        """The name without its last ending."""
        return posixpath.splitext(self.name)[0]

    @property
    def ending(self) -> str:
        """The last ending, in small letters: a picture's or a text's."""
        return posixpath.splitext(self.name)[1].lower()

    @property
    def is_picture(self) -> bool:
        """True for a picture by its ending."""
        return self.ending in PICTURES


def tar_members(path: Path) -> Iterator[TarMember]:
    """Yield the pictures and texts of a tar in its order, hidden ones left out; a later one of a name stands for the earlier.

    Raises DataError for what is no tar, and at the place where one is damaged, after the members before it.
    """
    unpacked = None if path.suffix == ".tar" else _unpacked(path, path.stat().st_mtime_ns)
    try:
        with (unpacked or path).open("rb") as file:
            for member in _members(path, file):
                if found := _member(path, member, unpacked):
                    yield found
    except (tarfile.TarError, OSError, ValueError, ArithmeticError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a readable tar: {first_line(error)}") from error


def _member(path: Path, member: tarfile.TarInfo, unpacked: Path | None) -> TarMember | None:
    parts = [part for part in posixpath.normpath(member.name).split("/") if part not in ("", ".", "..")]
    if not parts or parts[-1].startswith(".") or "__MACOSX" in parts or member.isdir():
        return None
    source = ImageSource(path, member.offset_data, member.size, member.name, unpacked)
    found = TarMember(name="/".join(parts), source=source, own=member.isreg() and not member.issparse())
    return found if found.is_picture or found.ending in SIDECARS else None


def _members(path: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield the files of a tar. Raises DataError at the first whose bytes are not all there, and for what is no tar."""
    size = file.seek(0, 2)
    file.seek(0)
    headers: Any = _Headers(file)
    with tarfile.open(fileobj=headers, mode="r:") as tar:
        for member in tar:
            if member.size < 0 or (member.isreg() and member.offset_data + member.size > size):
                name = visible(member.name)
                raise DataError(f"{path}:{name} claims {member.size:,} bytes, but the tar ends after {size:,}")
            yield member
            vars(tar)["members"] = []  # tarfile would keep them all
        file.seek(tar.offset)
        if file.read(_LONGEST_HEADER).strip(b"\0"):
            raise DataError(
                f"{path} is damaged at byte {tar.offset:,}, or was joined with another: what follows there is not read"
            )


class _Headers:
    """A tar's file as tarfile reads it, which is headers alone; a header that claims to be huge is refused."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header claims to be {size:,} bytes long")
        return self._file.read(size)


# ── compressed tars ──────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def workroom() -> Path:
    """Return a folder, one for the process, that goes when it ends."""
    folder = mkdtemp(prefix="clipcond-tars-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def _unpacked(path: Path, _changed: int) -> Path:
    """Unpack a compressed tar to a file that goes when the process ends. Raises DataError."""
    most = (64 << 20) + _MOST_UNPACKED * path.stat().st_size
    folder = workroom()
    target = folder / f"{len(list(folder.iterdir()))}.tar"
    try:
        with gzip.open(path) as packed, target.open("wb") as file:
            while block := packed.read(1 << 20):
                if file.tell() > most:
                    raise DataError(f"{path} unpacks to more than {most >> 20:,} MiB, which no pictures do")
                file.write(block)
    except (OSError, EOFError, zlib.error) as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            free = shutil.disk_usage(folder).free >> 20
            raise DataError(f"cannot unpack {path} to {folder}: {error.strerror} ({free:,} MiB free)") from error
        raise DataError(f"{path} is not a readable tar.gz: {first_line(error)}") from error
    except DataError:
        target.unlink(missing_ok=True)
        raise
    return target
