"""Embeddings as Parquet files: what is written is read, and nothing else is taken for it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipcond.encode.embedding_shards import ShardRow, ShardSpace, check_pyarrow, read_shard, shard_bytes
from clipcond.errors import ConfigError, DataError

SPACE = ShardSpace(
    model="mini", fingerprint="f" * 32, preprocessing="crop", computed="float32", stored="float32", width=4
)
ROWS = [
    ShardRow(
        path=f"/pictures/{name}",
        content="ab" * 20,
        width=8,
        height=9,
        share_seen=0.5,
        modified=1.5,
        prompt="a fox" if name else None,
        prompt_source="metadata",
    )
    for name in ("ö.png", "b.png", "")
]


def unit(count: int) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(count, 4))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_without_pyarrow_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'clipcond\[embed\]'"):
        check_pyarrow()


@pytest.fixture
def parquet() -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.mark.usefixtures("parquet")
def test_rows_and_vectors_come_back_bit_for_bit_and_equal_ones_give_equal_bytes(tmp_path: Path) -> None:
    content = shard_bytes(ROWS, unit(3), SPACE)
    assert content == shard_bytes(ROWS, unit(3), SPACE)
    (tmp_path / "a.parquet").write_bytes(content)
    rows, vectors, space = read_shard(tmp_path / "a.parquet")
    assert (rows, space) == (ROWS, SPACE)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, unit(3))


@pytest.mark.usefixtures("parquet")
def test_float16_takes_half_and_is_of_unit_length_again(tmp_path: Path) -> None:
    many = np.repeat(unit(3), 2000, axis=0)
    rows = [replace(ROWS[0], path=str(number)) for number in range(len(many))]
    half = shard_bytes(rows, many, replace(SPACE, stored="float16"))
    (tmp_path / "a.parquet").write_bytes(half)
    _, vectors, _ = read_shard(tmp_path / "a.parquet")
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert 0 < np.abs(vectors - many).max() < 1e-3


@pytest.mark.usefixtures("parquet")
def test_a_shard_of_nothing_and_a_prompt_that_is_no_unicode(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(shard_bytes([], unit(0), SPACE))
    assert read_shard(tmp_path / "a.parquet")[1].shape == (0, 4)
    (tmp_path / "b.parquet").write_bytes(shard_bytes([replace(ROWS[0], prompt="a \udcff fox")], unit(1), SPACE))
    assert read_shard(tmp_path / "b.parquet")[0][0].prompt == "a ? fox"


@pytest.mark.usefixtures("parquet")
def test_other_files_are_told_apart(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"path": ["a"], "vector": [[1.0]]}), path)
    with pytest.raises(DataError, match="holds no embeddings of clipcond"):
        read_shard(path)
    content = shard_bytes(ROWS, unit(3), SPACE)
    path.write_bytes(content[:-50])
    with pytest.raises(DataError, match="cannot be read as embeddings"):
        read_shard(path)
    path.write_bytes(shard_bytes(ROWS, unit(3), replace(SPACE, version=9)))
    with pytest.raises(DataError, match="by a newer clipcond"):
        read_shard(path)
    path.write_bytes(shard_bytes(ROWS, unit(3) * [[1], [0], [1]], SPACE))
    with pytest.raises(DataError, match="row 2: a vector of length 0; expected 1"):
        read_shard(path)
