from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import DataError, OutputExists, ShapeError
from clipcond.find.bit_index import BitIndex, _smallest
from clipcond.find.codes import by_faiss, by_numpy, codes_of, query_codes, words_of
from clipcond.find.segments import RECORD, SUFFIX, Segment, Source, centre, write_segment


def clip_like(count: int, width: int = 64, seed: int = 0) -> np.ndarray:
    """Unit rows with a long common mean and neighbours: clusters of rows about a hundred centres."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=width)
    centres = rng.normal(size=(100, width))
    rows = centres[rng.integers(100, size=count)] + 0.6 * rng.normal(size=(count, width))
    rows = 1.7 * mean / np.linalg.norm(mean) * width**0.5 + rows
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def index_of(folder: Path, rows: np.ndarray, sizes: list[int]) -> BitIndex:
    mean, segments, at = centre(rows), [], 0
    for number, size in enumerate(sizes):
        names = [f"{row}.png" for row in range(at, at + size)]
        segments.append(write_segment(folder / f"{number}{SUFFIX}", rows[at : at + size], names, mean))
        at += size
    return BitIndex(segments)


def test_the_nearest_by_codes_are_nearly_those_by_cosine(tmp_path: Path) -> None:
    rows = clip_like(3000)
    assert np.linalg.norm(centre(rows)) > 0.8
    index = index_of(tmp_path, rows, [1000, 1999, 1])
    assert len(index) == 3000
    few, many = index.recall(10, queries=index.sample(100), itself=True, rescored=(200, 3000))
    assert 0.95 <= few <= many == 1.0
    hits = index.search_exact(rows[7], 3)
    assert (hits[0].name, round(hits[0].cosine, 2)) == ("7.png", 1.0)
    truth = np.argsort(-(rows.astype(np.float16).astype(float) @ rows[7].astype(float)))[:3]
    assert [hit.name for hit in hits] == [f"{row}.png" for row in truth]
    assert index.search(rows[7], 3, rescored=3000) == hits


def test_codes_without_centring_find_less(tmp_path: Path) -> None:
    """The reason for the mean: signs of numbers that share a long mean hardly differ."""
    rows = clip_like(2000)
    names = [str(row) for row in range(len(rows))]
    plain = BitIndex([write_segment(tmp_path / f"a{SUFFIX}", rows, names, np.zeros(64, np.float32))])
    centred = BitIndex([write_segment(tmp_path / f"b{SUFFIX}", rows, names, centre(rows))])
    found = [index.recall(10, queries=index.sample(100), itself=True, rescored=(30,))[0] for index in (plain, centred)]
    assert found[1] > found[0]


def test_words_that_lie_elsewhere_than_pictures_find_them_too(tmp_path: Path) -> None:
    """A query with a long part that no row has: of its signs alone little is left to tell rows apart."""
    rows, rng = clip_like(4000), np.random.default_rng(5)
    index, mean = index_of(tmp_path, rows, [4000]), centre(rows)
    gap = rng.normal(size=64) / 8
    queries = rows[rng.integers(4000, size=30)] - mean
    queries = 0.25 * queries / np.linalg.norm(queries, axis=1, keepdims=True) + gap
    (found,) = index.recall(10, queries=queries, rescored=(400,))
    bits = rows > mean
    signs = 0.0
    for query in queries:
        near = np.argsort((bits != (query - mean > 0)).sum(axis=1), kind="stable")[:400]
        signs += len(set(near) & set(np.argsort(-(rows @ query))[:10])) / 300
    assert found >= 0.9 > 0.8 > signs


def test_a_query_keeps_eight_levels_of_each_number_without_its_part_along_the_mean() -> None:
    rng = np.random.default_rng(2)
    rows, mean, query = rng.normal(size=(50, 70)), rng.normal(size=70), rng.normal(size=70)
    own = query - (query @ mean) / (mean @ mean) * mean
    levels = np.clip(np.floor(own / (0.586 * np.sqrt(np.mean(own**2)))) + 4, 0, 7)
    products = np.where(rows > mean, 1, -1) @ (2 * levels - 7)
    distances = by_numpy(codes_of(rows, mean), query_codes(query, mean))
    assert (7 * 70 - 2 * distances.astype(int)).tolist() == products.tolist()
    assert query_codes(mean, mean).shape == (3, 2)


def test_faiss_counts_what_numpy_counts() -> None:
    pytest.importorskip("faiss", reason='FAISS is not installed: pip install "clipcond[search]"')
    rng = np.random.default_rng(4)
    codes, query = (rng.integers(0, 2**64, size=size, dtype=np.uint64) for size in ((999, 8), (3, 8)))
    assert by_faiss(codes, query).tolist() == by_numpy(codes, query).tolist()
    assert by_faiss(codes[::2, :3], query[:, :3]).tolist() == by_numpy(codes[::2, :3], query[:, :3]).tolist()


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 99))
def test_the_nearest_of_equals_are_the_first(most: int, block: int, seed: int) -> None:
    distances = np.random.default_rng(seed).integers(0, 9, size=50).astype(np.uint16)
    distances[seed % 50] = 2**16 - 1  # may not be found
    with mock.patch("clipcond.find.bit_index._LOOKED_AT", block):
        found = _smallest(distances, most)
    order = np.argsort(distances, kind="stable")[:49]
    assert found.tolist() == sorted(order[:most].tolist())


def test_rows_that_may_not_be_found_are_not(tmp_path: Path) -> None:
    rows = clip_like(500)
    index = index_of(tmp_path, rows, [200, 300])
    among = np.zeros(500, dtype=bool)
    among[[3, 199, 200, 450]] = True
    wanted = sorted([3, 199, 200, 450], key=lambda row: -float(rows[row] @ rows[7]))
    for found in (index.search(rows[7], 10, among=among), index.search_exact(rows[7], 10, among=among)):
        assert [hit.row for hit in found] == wanted
        assert [hit.name for hit in found] == [f"{row}.png" for row in wanted]
    assert index.search(rows[7], 10, among=among & False) == index.search_exact(rows[7], 10, among=among & False) == []


@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_bits_are_signs_about_the_mean(width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, mean = rng.normal(size=(5, width)).astype(np.float32), rng.normal(size=width).astype(np.float32)
    codes = codes_of(rows, mean)
    assert codes.shape == (5, words_of(width))
    differ = int(np.bitwise_count(codes[0] ^ codes[1]).sum())
    assert differ == int(((rows[0] > mean) != (rows[1] > mean)).sum())


def test_names_of_any_characters(tmp_path: Path) -> None:
    names = ["ü/\n.png", "", "\udcff.png", "b" * 300]
    segment = write_segment(tmp_path / f"a{SUFFIX}", clip_like(4), names, np.zeros(64, np.float32))
    assert [segment.name(row) for row in range(4)] == names


def test_records_and_sources_are_kept(tmp_path: Path) -> None:
    records = np.zeros(3, RECORD)
    records["width"], records["seen"] = [1, 2, 3], [2**64 - 1, 0, 5]
    sources = (Source("00000.parquet", 99, 2**62, 1), Source("ü", 1, 2, 2))
    segment = write_segment(
        tmp_path / f"a{SUFFIX}",
        clip_like(3),
        ["a", "b", "c"],
        np.zeros(64, np.float32),
        records=records,
        sources=sources,
    )
    assert segment.sources == sources
    assert segment.records.tolist() == records.tolist()
    assert BitIndex([segment]).records("width").tolist() == [1, 2, 3]
    with pytest.raises(ShapeError, match="records: there are 2; expected 3"):
        write_segment(tmp_path / "b", clip_like(3), ["a", "b", "c"], np.zeros(64, np.float32), records=records[:2])
    bare = write_segment(tmp_path / f"c{SUFFIX}", clip_like(1), ["a"], np.zeros(64, np.float32))
    with pytest.raises(DataError, match="made without records"):
        BitIndex([bare]).records("width")


def test_a_segment_is_never_overwritten_and_must_fit(tmp_path: Path) -> None:
    rows, mean = clip_like(2), np.zeros(64, np.float32)
    write_segment(tmp_path / f"a{SUFFIX}", rows, ["a", "b"], mean)
    with pytest.raises(OutputExists):
        write_segment(tmp_path / f"a{SUFFIX}", rows, ["a", "b"], mean)
    with pytest.raises(ShapeError, match="names: there are 1; expected 2"):
        write_segment(tmp_path / f"b{SUFFIX}", rows, ["a"], mean)
    other = write_segment(tmp_path / f"c{SUFFIX}", rows, ["a", "b"], centre(rows))
    with pytest.raises(DataError, match="belongs to another index"):
        BitIndex([Segment(tmp_path / f"a{SUFFIX}"), other])
    with pytest.raises(DataError, match="holds no segment"):
        BitIndex([])


@pytest.mark.parametrize("damage", ["cut", "foreign", "header", "claims"])
def test_a_damaged_segment_is_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / f"a{SUFFIX}"
    write_segment(path, clip_like(9), list("abcdefghi"), np.zeros(64, np.float32))
    content = path.read_bytes()
    path.write_bytes({
        "cut": content[:-40], "foreign": b"x" + content, "header": content[:30] + b"}" + content[31:],
        "claims": content.replace(b'"count": 9', b'"count":99'),
    }[damage])  # fmt: skip
    with pytest.raises(DataError, match="delete it, and it is made again") as raised:
        Segment(path)
    assert "\n" not in str(raised.value)


def test_a_kill_leaves_every_finished_segment_whole(tmp_path: Path) -> None:
    """Killed while it adds segments, over and over: what is there can be read, in full."""
    script = textwrap.dedent(
        f"""
        import itertools, os, sys
        import numpy as np
        from pathlib import Path
        from clipcond.find.segments import write_segment
        rows = np.random.default_rng(0).normal(size=(2000, 64)).astype("f4")
        start = int(sys.argv[1])
        for number in itertools.count(start):
            print(number, flush=True)
            write_segment(Path({str(tmp_path)!r}) / f"{{number:06}}{SUFFIX}", rows, ["x"] * 2000, np.zeros(64, "f4"))
        """
    )
    done = 0
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", script, str(done)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if int(line) >= done + 3:
                    break
            child.kill()
        segments = sorted(tmp_path.glob(f"*{SUFFIX}"))
        assert [int(path.stem) for path in segments] == [*range(len(segments))]
        assert len(segments) >= done + 3
        assert len(BitIndex([Segment(path) for path in segments])) == 2000 * len(segments)
        done = len(segments)
