"""Embeddings as Parquet files: a row for each picture, and in the file's metadata what the numbers are."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clipcond.errors import ConfigError, DataError
from clipcond.wording import first_line, visible

VERSION = 1
NEEDED = "Parquet needs pyarrow, which is not installed: pip install 'clipcond[embed]'"
_KEY = b"clipcond"
_STORED = {"float16": np.float16, "float32": np.float32}
_EXACT = 1e-6  # a norm this near to 1 is left alone


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSpace:
    """Everything that the vectors of a collection have in common.

    model: the spec it was loaded by.   fingerprint: of its weights in float32.   preprocessing: from `preprocessing_id`.
    computed: the dtype of the encoder.   stored: that of the vectors here.   width: P.
    """

    model: str
    fingerprint: str
    preprocessing: str
    computed: str
    stored: Literal["float16", "float32"]
    width: int
    version: int = VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRow:
    """A picture beside its vector. content: BLAKE2b of its bytes, 40 hex digits.   modified: seconds since 1970."""

    path: str
    content: str
    width: int
    height: int
    share_seen: float
    modified: float
    prompt: str | None = None
    negative_prompt: str | None = None
    prompt_source: str | None = None


def check_pyarrow() -> None:
    """Raise ConfigError where Parquet cannot be written or read."""
    _pyarrow()


def shard_bytes(rows: Sequence[ShardRow], vectors: np.ndarray, space: ShardSpace) -> bytes:
    """Return a Parquet file of N rows. vectors: (N, P) float32 unit rows. The same rows give the same bytes."""
    arrow, parquet = _pyarrow()
    flat = arrow.array(np.ascontiguousarray(vectors, dtype=_STORED[space.stored]).reshape(-1))
    columns: dict[str, Any] = {
        "path": _texts(arrow, [row.path for row in rows]),
        "content": _texts(arrow, [row.content for row in rows]),
        "model": _constant(arrow, space.fingerprint, len(rows)),
        "preprocessing": _constant(arrow, space.preprocessing, len(rows)),
        "vector": arrow.FixedSizeListArray.from_arrays(flat, space.width),
        "width": arrow.array([row.width for row in rows], arrow.int32()),
        "height": arrow.array([row.height for row in rows], arrow.int32()),
        "share_seen": arrow.array([row.share_seen for row in rows], arrow.float32()),
        "modified": arrow.array([row.modified for row in rows], arrow.float64()),
        "prompt": _texts(arrow, [row.prompt for row in rows]),
        "negative_prompt": _texts(arrow, [row.negative_prompt for row in rows]),
        "prompt_source": _texts(arrow, [row.prompt_source for row in rows]),
    }
    table = arrow.table(columns).replace_schema_metadata({_KEY: json.dumps(asdict(space), sort_keys=True)})
    file = io.BytesIO()
    parquet.write_table(table, file, compression="zstd", use_dictionary=["model", "preprocessing", "prompt_source"])
    return file.getvalue()


def _texts(arrow: Any, values: Sequence[str | None]) -> Any:
    """A column of texts; what UTF-8 cannot hold, of a prompt, becomes a question mark."""
    held = [None if value is None else value.encode("utf-8", "replace").decode() for value in values]
    return arrow.array(held, arrow.string())


def _constant(arrow: Any, value: str, count: int) -> Any:
    return arrow.DictionaryArray.from_arrays(arrow.array([0] * count, arrow.int32()), arrow.array([value]))


def read_shard(path: Path) -> tuple[list[ShardRow], np.ndarray, ShardSpace]:
    """Return rows, (N, P) float32 unit vectors, and what they are. Raises DataError for any other file."""
    _, parquet = _pyarrow()
    try:
        table = parquet.read_table(path, partitioning=None)
        space = _space(table.schema.metadata or {}, path)
        values = table.column("vector").combine_chunks()
        flat = np.asarray(values.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
        names = ShardRow.__dataclass_fields__
        rows = [ShardRow(**row) for row in table.select(list(names)).to_pylist()]
    except DataError:
        raise
    except Exception as error:  # pyarrow's kinds of error are many
        raise DataError(f"{path} cannot be read as embeddings: {first_line(error)}") from error
    if flat.size != len(rows) * space.width:
        raise DataError(f"{path} is damaged: {flat.size:,} numbers for {len(rows):,} vectors of {space.width}")
    return rows, _unit(flat.reshape(len(rows), space.width), path), space


def _space(metadata: Mapping[bytes, bytes], path: Path) -> ShardSpace:
    if _KEY not in metadata:
        raise DataError(f"{path} holds no embeddings of clipcond; expected a file that clipcond embed wrote")
    try:
        found = json.loads(metadata[_KEY])
        space = ShardSpace(**found)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} was written by another clipcond ({first_line(error)}); embed it anew") from error
    if space.version != VERSION:
        raise DataError(f"{path} was written by a newer clipcond (version {space.version}, expected {VERSION})")
    return space


def _unit(vectors: np.ndarray, path: Path) -> np.ndarray:
    """Rows of unit length again: float16 rounds them."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not (np.abs(norms - 1) < 0.02).all():
        row = int(np.argmax(~(np.abs(norms - 1) < 0.02)))
        raise DataError(visible(f"{path}, row {row + 1}: a vector of length {norms[row]:g}; expected 1"))
    scale = np.where(np.abs(norms - 1) <= _EXACT, 1.0, norms)
    return (vectors / scale[:, None]).astype(np.float32)


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(NEEDED) from error
