"""WebDataset tars: which files they are, and an index of the images and captions in one.

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
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, BinaryIO

from clipcond.errors import DataError
from clipcond.images.find import SUFFIXES
from clipcond.train.image_source import ImageSource
from clipcond.train.rows import BadRows, captions_of, problem_with
from clipcond.train.tables import parsed_json
from clipcond.wording import first_line, visible

ENDINGS = (".tar", ".tar.gz", ".tgz")
_MOST_SHARDS = 100_000
_LONGEST_HEADER = 1 << 20  # bytes of a pax header or of a long name
_LONGEST_CAPTION = 1 << 20  # bytes of a caption's file
_MOST_UNPACKED = 100  # times the size of a compressed tar, beside 64 MiB

Indexed = tuple[ImageSource, tuple[str, ...]]


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def find_shards(pattern: str) -> list[Path]:
    """Return the tars that a path, a glob or a brace pattern (`train-{000..012}.tar`) names. Raises DataError."""
    if Path(pattern).is_file():
        return [Path(pattern)]
    shards: dict[Path, None] = {}
    names = list(islice(_braces(pattern), _MOST_SHARDS + 1))
    if not names:
        raise DataError(f"{pattern} names no file: its numbers run backwards")
    if len(names) > _MOST_SHARDS:
        raise DataError(f"{pattern} names more than {_MOST_SHARDS:,} tars")
    for name in names:
        found = sorted(glob.glob(name)) if glob.has_magic(name) else [name]  # noqa: PTH207  (a pattern may be absolute)
        if not found:
            raise DataError(f"no file matches {name}")
        shards.update((Path(path), None) for path in found)
    for shard in shards:
        if not shard.is_file():
            raise DataError(f"{shard} does not exist" + (f", which {pattern} names" if len(shards) > 1 else ""))
    return list(shards)


def _braces(pattern: str) -> Iterator[str]:
    """Write out `{000..012}` and `{a,b}` of a pattern, in order."""
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


@dataclass(slots=True)
class _Shard:
    """The files of a tar, by name without the last ending: pictures, and the bytes of caption files by ending."""

    path: Path
    pictures: dict[str, list[ImageSource]] = field(default_factory=dict)
    captions: dict[str, dict[str, bytes]] = field(default_factory=dict)


def index_shard(path: Path, bad: BadRows, notes: list[str]) -> list[Indexed]:
    """Return the images of a tar, each with its captions, in the tar's order; add notes about what is not used.

    A picture and its caption have one name up to the last ending: `a.png` and `a.txt` or `a.json`; where both are there
    the text file is it. What stands before the first dot of the base name is the sample: `a.mask.png` is another file
    of the sample `a`, not its picture. Raises DataError for a damaged tar, and for a picture without a caption.
    """
    shard = _read_shard(path, bad)
    found: list[Indexed] = []
    for stem in shard.pictures:
        try:
            if pair := _pair(shard, stem):
                found.append(pair)
        except DataError as error:
            bad.leave_out(error)
    alone = [stem for stem in shard.captions if stem not in shard.pictures and _sample(stem) not in shard.pictures]
    if alone:
        ending = next(iter(shard.captions[alone[0]]))
        more = f" and {len(alone) - 1} more have" if len(alone) > 1 else " has"
        notes.append(visible(f"{path}: {alone[0]}{ending}{more} no picture"))
    return found


def _pair(shard: _Shard, stem: str) -> Indexed | None:
    """Return a picture and its captions; None for another file of a sample that has its own picture. Raises DataError."""
    picture, *others = shard.pictures[stem]
    if others:
        raise DataError(f"{picture} and {visible(others[0].name)} are both the picture of one caption; expected one")
    said = shard.captions.get(stem)
    if said:
        return picture, _captions(said, f"{shard.path}:{stem}")
    sample = _sample(stem)
    if sample != stem and sample in shard.pictures and sample in shard.captions:
        return None
    near = next((other for other in shard.captions if _sample(other) == sample), None)
    if near is not None:
        name = near + next(iter(shard.captions[near]))
        raise DataError(visible(
            f"{picture} and {name} cannot be paired; the caption of the first would be {stem}.txt or {stem}.json"
        ))  # fmt: skip
    raise DataError(visible(f"{picture} has no caption: there is no {stem}.txt or {stem}.json beside it"))


def _sample(stem: str) -> str:
    """Return a name up to the first dot of its last part: WebDataset's key."""
    folder, slash, last = stem.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _captions(said: dict[str, bytes], stem: str) -> tuple[str, ...]:
    ending = ".txt" if ".txt" in said else ".json"
    where = visible(stem + ending)
    if len(said[ending]) > _LONGEST_CAPTION:
        raise DataError(f"{where}: longer than {_LONGEST_CAPTION >> 20} MiB, which is no caption")
    text = said[ending].decode("utf-8-sig", "surrogateescape")
    captions = (text.strip(),) if ending == ".txt" else captions_of(parsed_json(text, where), where)
    if not all(caption.strip() for caption in captions):
        raise DataError(f"{where}: the caption is empty")
    for caption in captions:
        if problem := problem_with(caption):
            raise DataError(f"{where}: {problem}")
    return captions


def _read_shard(path: Path, bad: BadRows) -> _Shard:
    shard = _Shard(path)
    unpacked = None if path.suffix == ".tar" else _unpacked(path, path.stat().st_mtime_ns)
    try:
        with (unpacked or path).open("rb") as file:
            for member in _members(path, file):
                _add(shard, member, file, unpacked, bad)
    except (tarfile.TarError, OSError, ValueError, ArithmeticError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a readable tar: {first_line(error)}") from error
    return shard


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


def _add(shard: _Shard, member: tarfile.TarInfo, file: BinaryIO, unpacked: Path | None, bad: BadRows) -> None:
    name = posixpath.normpath(member.name)
    stem, ending = posixpath.splitext(name)
    parts = name.split("/")
    if parts[-1].startswith(".") or "__MACOSX" in parts or member.isdir():
        return
    ending = ending.lower()
    if ending not in (*SUFFIXES, ".txt", ".json"):
        return
    if not member.isreg() or member.issparse():
        bad.leave_out(DataError(f"{shard.path}:{visible(name)} is a link or a sparse file, not a file of its own"))
    elif ending in SUFFIXES:
        source = ImageSource(shard.path, member.offset_data, member.size, member.name, unpacked)
        same = shard.pictures.setdefault(stem, [])
        same[:] = [*(other for other in same if other.name != member.name), source]  # a later one replaces
    else:
        file.seek(member.offset_data)
        content = file.read(min(member.size, _LONGEST_CAPTION + 1))
        shard.captions.setdefault(stem, {})[ending] = content


# ── compressed tars ──────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def _workroom() -> Path:
    """Make a folder that goes when the process ends."""
    folder = mkdtemp(prefix="clipcond-tars-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def _unpacked(path: Path, _changed: int) -> Path:
    """Unpack a compressed tar to a file that goes when the process ends. Raises DataError."""
    most = (64 << 20) + _MOST_UNPACKED * path.stat().st_size
    folder = _workroom()
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
