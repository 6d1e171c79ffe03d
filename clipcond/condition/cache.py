"""States of rows that were encoded before, by a key that says everything they depend on.

In memory, up to a number of bytes, those used last; on request also in a folder, one safetensors file for each key,
which several processes may use at once: a file appears whole or not at all, and whatever is wrong with one is a miss.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp
from threading import Lock
from typing import TYPE_CHECKING
from zlib import crc32

from clipcond.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

MIB, GIB = 2**20, 2**30
SUFFIX, _UNFINISHED = ".states.safetensors", ".unfinished"
_LEAST_LEFT = 0.9  # of the folder's limit: so that not every new file has to clear the folder
_ABANDONED = 3600.0  # seconds after which an unfinished file has nobody left who writes it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class States:
    """What an encoder says about one row, in its dtype; never written into."""

    hidden: Tensor  # (L, D)
    pooled: Tensor | None  # (D,)
    projected: Tensor | None  # (P,)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Those that are there, by name."""
        named = {"hidden": self.hidden, "pooled": self.pooled, "projected": self.projected}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @property
    def bytes(self) -> int:
        """What they take in memory."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class Cache:
    """The states used last, in memory and perhaps in a folder; usable from several threads."""

    def __init__(self, limit: int = 256 * MIB, folder: str | Path | None = None, folder_limit: int = 2 * GIB) -> None:
        """limit: bytes in memory.   folder: where to keep them on disk too, made when it is not there; only files of
        this cache in it are ever removed.   folder_limit: bytes on disk, all files of the folder's cache together.

        Raises ConfigError for a limit below 0 and for a folder that is a file.
        """
        if limit < 0 or folder_limit < 0:
            raise ConfigError(f"cache: limits of {limit} and {folder_limit} bytes, expected 0 or more")
        if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
            raise ConfigError(f"cache: {folder} is a file; name a folder, which is made where it is not there")
        self._limit = limit
        self._held: OrderedDict[str, States] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        self._folder = None if folder is None else _Folder(Path(folder), folder_limit)

    def get(self, key: str) -> States | None:
        """What was put under `key`, if it is still there; states that come from disk are on the CPU.

        key: letters, digits, `-` and `_`.
        """
        with self._lock:
            states = self._held.get(key)
            if states is not None:
                self._held.move_to_end(key)
                return states
        states = None if self._folder is None else self._folder.read(key)
        if states is not None:
            self._hold(key, states)
        return states

    def put(self, key: str, states: States) -> None:
        """Keep a copy of the states, in place of those that were unused for longest."""
        copies = {name: tensor.detach().clone() for name, tensor in states.tensors.items()}
        self._hold(key, _states(copies))
        if self._folder is not None:
            self._folder.write(key, copies)

    def _hold(self, key: str, states: States) -> None:
        with self._lock:
            if key in self._held:
                self._bytes -= self._held.pop(key).bytes
            if states.bytes > self._limit:
                return
            self._held[key] = states
            self._bytes += states.bytes
            while self._bytes > self._limit:
                self._bytes -= self._held.popitem(last=False)[1].bytes


def _states(tensors: Mapping[str, Tensor]) -> States:
    return States(hidden=tensors["hidden"], pooled=tensors.get("pooled"), projected=tensors.get("projected"))


class _Folder:
    """The part of a cache that stays: the time of a file's last change is that of its last use."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path, self._limit = path, limit
        self._size = self._added = 0  # at the last count, and since
        self._counted = False

    def read(self, key: str) -> States | None:
        """The states of a file; None when there is none, when it is damaged or when it cannot be read."""
        file = self._path / (key + SUFFIX)
        try:
            content = file.read_bytes()
        except OSError:
            return None
        with suppress(OSError):  # a folder may be for reading only
            os.utime(file)
        return _unpacked(content)

    def write(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep a file. A disk that is full or not writable costs the file and nothing else."""
        content = _packed(tensors)
        if len(content) > self._limit:
            return
        with suppress(OSError):
            self._path.mkdir(parents=True, exist_ok=True)
            self._put(self._path / (key + SUFFIX), content)
            self._added += len(content)
            if not self._counted or self._size + self._added > self._limit or self._added > self._limit // 20:
                self._clear()  # now and then in any case: other processes add as well

    def _put(self, file: Path, content: bytes) -> None:
        """Write beside the file, then take its place: no reader ever sees half of it."""
        number, name = mkstemp(dir=self._path, suffix=SUFFIX + _UNFINISHED)
        try:
            with open(number, "wb") as unfinished:
                unfinished.write(content)
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _clear(self) -> None:
        """Count the files; beyond the limit, remove those unused for longest until there is some room again."""
        files = self._files()
        size = sum(each for _, each, _ in files)
        wanted = size if size <= self._limit else int(self._limit * _LEAST_LEFT)
        newest = files[-1][0] if files else 0.0
        for used, each, path in files:
            abandoned = newest - used > _ABANDONED
            if abandoned if path.name.endswith(_UNFINISHED) else size > wanted:
                path.unlink(missing_ok=True)
                size -= each
        self._size, self._added, self._counted = size, 0, True

    def _files(self) -> list[tuple[float, int, Path]]:
        """Last use, size and path of each file, the one unused for longest first."""
        found = []
        for path in self._path.iterdir():
            if path.name.endswith((SUFFIX, SUFFIX + _UNFINISHED)):
                with suppress(OSError):  # another process removed it
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
        return sorted(found)


def _packed(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file with a checksum of its own in the metadata."""
    from safetensors.torch import save

    plain = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, metadata={"crc32": str(_checksum(plain))})


def _unpacked(content: bytes) -> States | None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        whole = header["__metadata__"]["crc32"] == str(_checksum(tensors))
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
    return _states(tensors) if whole and "hidden" in tensors else None


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    import torch

    total = 0
    for name, tensor in sorted(tensors.items()):
        total = crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = crc32(tensor.view(-1).view(torch.uint8).numpy().data, total)
    return total
