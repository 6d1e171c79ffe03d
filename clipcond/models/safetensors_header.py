"""The header of a safetensors file, read as hostile input: names, dtypes and shapes, no tensor, no code."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipcond.errors import ModelError
from clipcond.wording import first_line

LARGEST = 100_000_000  # bytes of a header, the format's own limit
_SIZES = {
    "F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of a file: `file[start:end]` are its bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors of a file by name, and its metadata."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Read and check the header of a file. Raises ModelError in one line for anything that is not safetensors."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(LARGEST, size - 8):
                raise ModelError(f"{path} is no safetensors file: its header would have {length:,} of {size:,} bytes")
            document = json.loads(file.read(length))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error
    except RecursionError:
        raise ModelError(f"{path} is no safetensors file: its header is nested too deeply") from None
    except ModelError:
        raise
    except ValueError as error:
        raise ModelError(f"{path} is no safetensors file: {first_line(error)}") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path} is no safetensors file: its header is a JSON {type(document).__name__}")
    stated = document.pop("__metadata__", {})
    metadata = {str(key): str(value) for key, value in stated.items()} if isinstance(stated, dict) else {}
    tensors = {name: _tensor(path, name, entry, 8 + length, size) for name, entry in document.items()}
    return Header(tensors, metadata)


def _tensor(path: Path, name: str, entry: object, first: int, size: int) -> StoredTensor:
    """Check one entry of a header."""
    try:
        dtype, shape, (start, end) = (entry[key] for key in ("dtype", "shape", "data_offsets"))  # type: ignore[index]
        sides = tuple(side for side in shape if isinstance(side, int) and not isinstance(side, bool) and side >= 0)
        whole = isinstance(dtype, str) and len(sides) == len(shape) and isinstance(start, int) and isinstance(end, int)
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or not 0 <= start <= end <= size - first:
        raise ModelError(f"{path} is damaged: its header does not say where {name[:80]!r} is")
    count = 1
    for side in sides:
        count *= side
    if dtype in _SIZES and count * _SIZES[dtype] != end - start:
        raise ModelError(f"{path} is damaged: {name[:80]!r} of shape {sides} has {end - start:,} bytes")
    return StoredTensor(dtype=dtype, shape=sides, start=first + start, end=first + end)
