"""The weights of a TorchScript archive, read as data: its program is neither compiled nor run.

The archive is a zip. `data.pkl` describes the tree of modules, whose tensors name their storages; each storage is a
member of its own. Every class that the pickle names becomes a plain holder of attributes, and nothing else is found.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipcond.errors import ModelError

_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
}


def is_torchscript(path: Path) -> bool:
    """True if a zip is a TorchScript archive and not a pickle of `torch.save`."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the parameters and buffers of an archive by name, on the CPU in the dtypes they are stored in.

    Raises ModelError for an archive of another make, and what zipfile and pickle raise for damaged ones.
    """
    with zipfile.ZipFile(path) as archive:
        member = next(
            (name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")), None
        )
        if member is None:
            raise ModelError(f"{path} is a TorchScript archive without data.pkl")
        with archive.open(member) as file:
            root = _Unpickler(file, archive, member.removesuffix("data.pkl")).load()
    return dict(_tensors(root, ""))


class _Module:
    """A module or any other object of the archive: its attributes."""

    def __init__(self, *_: object) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(file)
        self._archive, self._prefix = archive, prefix

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":  # marks of typed lists
            return _typed
        raise ModelError(f"the archive names {module}.{name}, which no weights need; nothing of it was run")

    def persistent_load(self, key: Any) -> Tensor:
        kind, dtype, name, _, _ = key
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise ModelError("the archive names a storage that cannot be read")
        member = self._archive.getinfo(f"{self._prefix}data/{name}")
        if member.compress_type != zipfile.ZIP_STORED:  # as torch writes them; a packed one could be of any size
            raise ModelError("the archive holds packed storages; expected them stored as torch writes them")
        content = bytearray(self._archive.read(member))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    view = storage.as_strided(size, stride, offset)
    if view.numel() > storage.numel():
        raise ModelError("the archive holds a tensor that claims more numbers than it stores")
    return view.contiguous()


def _typed(value: Any, *_: object) -> Any:
    return value


def _tensors(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, _Module):
        for key, inner in value.attributes.items():
            yield from _tensors(inner, f"{name}.{key}" if name else str(key))
