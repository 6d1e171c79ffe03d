"""The token tables of text encoders in files, looked at a row at a time: which tokens no training ever reached."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from clipcond.errors import ModelError
from clipcond.models.safetensors_header import StoredTensor, read_header

_NAME = "token_embedding.weight"


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
    raise ModelError(f"{folder} holds no token table in safetensors; the words that it has never seen are unknown")


def _zero_rows(path: Path, table: StoredTensor, ids: Iterable[int]) -> frozenset[int]:
    width = (table.end - table.start) // table.shape[0]
    zero = set()
    with path.open("rb") as file:
        for number in sorted(ids):
            if 0 <= number < table.shape[0]:
                file.seek(table.start + number * width)
                if not any(file.read(width)):
                    zero.add(number)
    return frozenset(zero)
