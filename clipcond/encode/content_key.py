"""Pictures known by their bytes: a hash of the content, and what of a file's state says that it is still the same."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

from clipcond.errors import DataError
from clipcond.images.tar_paths import member_of, tar_of

KEY_BYTES = 20
_BLOCK = 1 << 20
_SETTLED = 2 * 10**9  # nanoseconds: the coarsest clock of a file system that is in use


class FileState(NamedTuple):
    """The marks of a file that change when it does.

    changed_ns also moves where a program sets the time of the last change back.
    """

    modified_ns: int
    changed_ns: int
    size: int

    def settled(self, now: float) -> bool:
        """True if a later change cannot leave this state as it is, however coarse the file system's clock."""
        return int(now * 1e9) - max(self.modified_ns, self.changed_ns) > _SETTLED


def content_key(content: bytes) -> bytes:
    """Return the key of a picture's encoded bytes, as of a member of a tar: BLAKE2b, 20 bytes."""
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()


def state_seal(name: bytes, state: FileState, key: bytes) -> bytes:
    """Return a checksum of what is remembered of a file, so that no file passes for another."""
    return hashlib.blake2b(repr((name, *state, key)).encode(), digest_size=8).digest()


def file_state(path: str | Path) -> FileState | None:
    """Return the state of a regular file, or of a tar with the size of its member; None for anything else, never opened."""
    tar = tar_of(path)
    try:
        found = os.stat(path if tar is None else tar)  # noqa: PTH116 - ten thousand times a second
        member = None if tar is None else member_of(path)
    except (OSError, ValueError):  # a DataError is one
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return _state(found) if member is None else _state(found)._replace(size=member.length())


def file_key(path: str | Path) -> tuple[bytes, FileState] | None:
    """Return the key of a file and the state that it was read in; None where it is no regular file, or changes meanwhile.

    The key is that of `content_key` for the file's bytes.
    """
    state = file_state(path)
    if state is None:
        return None
    if tar_of(path) is not None:
        return _member_key(path, state)
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb", buffering=0) as file:
            before = os.fstat(handle)
            while block := file.read(_BLOCK):
                digest.update(block)
            after = os.fstat(handle)
    except OSError:
        return None
    if not stat.S_ISREG(before.st_mode) or _state(before) != _state(after):
        return None
    return digest.digest(), _state(after)


def _member_key(path: str | Path, state: FileState) -> tuple[bytes, FileState] | None:
    """The key of a picture in a tar, unless the tar changes meanwhile."""
    try:
        member = member_of(path)
        key = None if member is None else content_key(member.read())
    except DataError:
        return None
    return None if key is None or file_state(path) != state else (key, state)


def _state(found: os.stat_result) -> FileState:
    return FileState(modified_ns=found.st_mtime_ns, changed_ns=found.st_ctime_ns, size=found.st_size)
