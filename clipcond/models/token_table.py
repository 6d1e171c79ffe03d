"""The token tables of text encoders in files, looked at a row at a time: which tokens no training ever reached.

A table may be packed, as `clipcond.models.open_clip_folder` writes it: the numbers of its rows that are not zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from clipcond.errors import ModelError
from clipcond.models.safetensors_header import StoredTensor, read_header

_NAME, _PACKED = "token_embedding.weight", "token_embedding.weight.ids"

_INTEGERS: Mapping[str, Literal["q", "i"]] = {"I64": "q", "I32": "i"}  # as memoryview names them


class TokenTables:
    """The tables of all CLIP text encoders of a model, each in its folder. Nothing but the rows asked for is read."""

    def __init__(self, folders: Iterable[Path]) -> None:
        """Raises ModelError for a folder without a table in safetensors."""
        self._tables = [_table(folder) for folder in folders]

    def untrained(self, ids: Iterable[int]) -> frozenset[int]:
        """Return those of some token ids whose rows are zero in every table."""
        asked = frozenset(ids)
        for path, table in self._tables:
            asked = _zero_rows(path, table, asked)
        return asked


def _table(folder: Path) -> tuple[Path, StoredTensor]:
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in read_header(path).tensors.items():
            if name.endswith(_NAME) and len(tensor.shape) == 2 and tensor.shape[0]:
                return path, tensor
            if name.endswith(_PACKED) and len(tensor.shape) == 1 and tensor.dtype in _INTEGERS:
                return path, tensor
    raise ModelError(f"{folder} holds no token table in safetensors; the words that it has never seen are unknown")


def _zero_rows(path: Path, table: StoredTensor, ids: Iterable[int]) -> frozenset[int]:
    if len(table.shape) == 1:
        return frozenset(ids) - _numbers(path, table)
    width = (table.end - table.start) // table.shape[0]
    zero = set()
    with path.open("rb") as file:
        for number in sorted(ids):
            if 0 <= number < table.shape[0]:
                file.seek(table.start + number * width)
                if not any(file.read(width)):
                    zero.add(number)
    return frozenset(zero)


def _numbers(path: Path, packed: StoredTensor) -> frozenset[int]:
    with path.open("rb") as file:
        file.seek(packed.start)
        content = file.read(packed.end - packed.start)
    return frozenset(memoryview(content).cast(_INTEGERS[packed.dtype]))
