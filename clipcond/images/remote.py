"""Pictures and tars behind an address that fsspec knows (`s3://…`, `memory://…`): listed, and fetched for a while."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clipcond.errors import ImageError
from clipcond.images.suffixes import PICTURES
from clipcond.images.tars import ENDINGS, workroom, written_out
from clipcond.wording import first_line, visible

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|[A-Za-z][A-Za-z0-9+.-]+::")
_AT_ONCE = 8  # files that are fetched


def is_remote(source: str) -> bool:
    """True for an address with a protocol; paths of this machine have none."""
    return _ADDRESS.match(source) is not None


def remote_pictures(address: str) -> list[str]:
    """Return the addresses of the pictures that one stands for, sorted: a file, a folder with all below it, or a pattern.

    Raises ImageError for an address that cannot be listed, and for a tar, which has to be on this machine.
    """
    with _one_line(address):
        system, path = _system(address)
        if "*" in path or "?" in path:
            found = [str(each) for each in system.glob(path)]
        elif system.isdir(path):
            found = [str(each) for each in system.find(path)]
        else:
            found = [path]
        pictures = [each for each in found if Path(each).suffix.lower() in PICTURES]
        if not pictures and any(each.endswith(ENDINGS) for each in found):
            raise ImageError(f"{visible(address)} is a tar that is not on this machine; copy it here first")
        return sorted(system.unstrip_protocol(each) for each in pictures)


@contextmanager
def fetched(addresses: Sequence[str]) -> Iterator[list[Path]]:
    """Fetch pictures into a folder that goes when the block ends; one that cannot be fetched is a path to nothing."""
    with TemporaryDirectory(prefix="clipcond-fetched-") as folder:
        paths = [Path(folder, f"{number}{Path(each).suffix}") for number, each in enumerate(addresses)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(_fetch, addresses, paths))
        yield paths


@cache
def fetched_tars(address: str) -> tuple[Path, ...]:
    """Copy the tars that an address stands for into a folder that goes when the process ends, once a process.

    address: of a tar, a folder of them, a glob or a brace pattern. Raises ImageError where there is none, and before the
    copies would fill the disk.
    """
    with _one_line(address):
        found = [pair for each in written_out(address) for pair in _tars(each)]
        if not found:
            raise ImageError(f"{visible(address)} names no tar; expected addresses that end in {', '.join(ENDINGS)}")
        folder = workroom() / f"fetched-{len(list(workroom().iterdir()))}"
        folder.mkdir()
        size, free = sum(int(system.size(path) or 0) for system, path in found), shutil.disk_usage(folder).free
        if size > free:
            raise ImageError(f"{visible(address)} is {size >> 20:,} MiB, but {folder} has room for {free >> 20:,}")
        copies = [folder / f"{number:05d}-{path.rsplit('/', 1)[-1]}" for number, (_, path) in enumerate(found)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda pair, copy: pair[0].get_file(pair[1], str(copy)), found, copies))
        return tuple(copies)


def _tars(address: str) -> list[tuple[Any, str]]:
    """Return the tars of an address without braces, sorted, each with its file system."""
    system, path = _system(address)
    if "*" in path or "?" in path:
        found = [str(each) for each in system.glob(path)]
    elif system.isdir(path):
        found = [str(each) for each in system.find(path, maxdepth=1)]
    else:
        found = [path]
    return [(system, each) for each in sorted(found) if each.endswith(ENDINGS)]


def _fetch(address: str, path: Path) -> None:
    try:
        with _one_line(address):
            system, source = _system(address)
            system.get_file(source, str(path))
    except ImageError:
        path.unlink(missing_ok=True)


def _system(address: str) -> tuple[Any, str]:
    fsspec: Any = import_module("fsspec")
    found: Callable[[str], tuple[Any, str]] = fsspec.core.url_to_fs
    return found(address)


@contextmanager
def _one_line(address: str) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # of as many kinds as there are protocols
        raise ImageError(f"{visible(address)} cannot be read: {type(error).__name__}: {first_line(error)}") from error
