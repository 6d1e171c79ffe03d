"""States of rows that were encoded before, by a key of everything they depend on.

In memory, up to a number of bytes, those used last; on request also in a folder, one safetensors file for each key,
which several processes may use at once: a file appears whole or not at all, and whatever is wrong with one is a miss.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from zlib import crc32

from clipcond.errors import ConfigError
from clipcond.files import BoundedFolder

if TYPE_CHECKING:
    from torch import Tensor

MIB, GIB = 2**20, 2**30
SUFFIX = ".states.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class States:
    """An encoder's states of one row, in its dtype; never written into."""

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
        """Their size in memory."""
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
        self._folder = None if folder is None else BoundedFolder(Path(folder), folder_limit, SUFFIX)

    def get(self, key: str) -> States | None:
        """Return the states under `key`, None where there are none; those from disk are on the CPU.

        key: letters, digits, `-` and `_`.
        """
        with self._lock:
            states = self._held.get(key)
            if states is not None:
                self._held.move_to_end(key)
                return states
        content = None if self._folder is None else self._folder.read(key)
        states = None if content is None else _unpacked(content, key)
        if states is not None:
            self._hold(key, states)
        return states

    def put(self, key: str, states: States) -> None:
        """Keep a copy of the states, in place of those that were unused for longest."""
        copies = {name: tensor.detach().clone() for name, tensor in states.tensors.items()}
        self._hold(key, _states(copies))
        if self._folder is not None:
            self._folder.write(key, _packed(copies, key))

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


def _packed(tensors: Mapping[str, Tensor], key: str) -> bytes:
    """A safetensors file with a checksum of content and key in the metadata, so that none passes for another's."""
    from safetensors.torch import save

    plain = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, metadata={"crc32": str(checksum(plain, key))})


def _unpacked(content: bytes, key: str) -> States | None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        whole = header["__metadata__"]["crc32"] == str(checksum(tensors, key))
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
    return _states(tensors) if whole and "hidden" in tensors else None


def checksum(tensors: Mapping[str, Tensor], text: str = "") -> int:
    """Return the CRC-32 of tensors on the CPU with their names, dtypes and shapes, and of a text that goes with them."""
    import torch

    total = crc32(text.encode())
    for name, tensor in sorted(tensors.items()):
        total = crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return total
