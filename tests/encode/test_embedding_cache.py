"""The embedding cache: what is a hit, what is a miss, and everything that can happen to a database."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from clipcond.encode.content_key import content_key
from clipcond.encode.embedding_cache import EmbeddingCache, default_path
from clipcond.encode.embedding_space import EmbeddingSpace
from clipcond.errors import ConfigError, ShapeError

SPACE = EmbeddingSpace(model="m", preprocess="p", width=16, name="mini")


def unit(seed: int, width: int = 16) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=width).astype(np.float32)
    return vector / np.linalg.norm(vector)


def some(first: int, count: int, width: int = 16) -> dict[bytes, np.ndarray]:
    return {content_key(str(seed).encode()): unit(seed, width) for seed in range(first, first + count)}


def there(cache: EmbeddingCache, keys: Sequence[bytes | None], space: EmbeddingSpace = SPACE) -> list[bool]:
    found = cache.get(keys, space)
    return [key in found for key in keys]


class Clock:
    def __init__(self) -> None:
        self.now = time.time() + 60

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path / "cache" / "embeddings.sqlite")


def test_what_was_put_is_found_again_by_another_run(cache: EmbeddingCache) -> None:
    vectors = some(0, 1200)
    returned = cache.put(vectors, SPACE)
    cache.close()
    found = EmbeddingCache(cache.path).get([*vectors, None, b"none"], SPACE)
    assert found.keys() == vectors.keys()
    assert all(found[key].tobytes() == vectors[key].tobytes() == returned[key].tobytes() for key in vectors)
    assert cache.problems == ()


def test_float16_gives_the_first_run_what_the_second_reads(cache: EmbeddingCache) -> None:
    space = dataclasses.replace(SPACE, dtype="float16")
    returned = cache.put(some(0, 50), space)
    found = cache.get(list(returned), space)
    assert all(found[key].tobytes() == returned[key].tobytes() for key in returned)


@pytest.mark.parametrize("change", [{"model": "n"}, {"preprocess": "q"}, {"width": 8}, {"dtype": "float16"}])
def test_another_space_is_a_miss(cache: EmbeddingCache, change: dict[str, object]) -> None:
    vectors = some(0, 3)
    cache.put(vectors, SPACE)
    assert not cache.get(list(vectors), dataclasses.replace(SPACE, **change))  # type: ignore[arg-type]


def test_renamed_is_a_hit_touched_is_a_hit_and_changed_is_a_miss(cache: EmbeddingCache, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"picture")
    (before,) = cache.keys([path])
    assert before == content_key(b"picture")
    cache.put({before: unit(1)}, SPACE)
    path = path.rename(tmp_path / "b.png")
    assert there(cache, cache.keys([path])) == [True]
    os.utime(path)
    assert there(cache, cache.keys([path])) == [True]
    path.write_bytes(b"changed")
    assert there(cache, cache.keys([path])) == [False]


def test_unchanged_files_are_not_read_again(
    cache: EmbeddingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = EmbeddingCache(cache.path, clock=Clock())
    path = tmp_path / "a.png"
    path.write_bytes(b"picture")
    keys = cache.keys([path])
    path.chmod(0o600)  # moves the time of the state's change: it is read again
    assert cache.keys([path]) == keys
    monkeypatch.setattr("clipcond.encode.embedding_cache.file_key", lambda path: pytest.fail(f"{path} is read"))
    assert cache.keys([path]) == keys


def test_a_file_of_the_same_size_whose_time_was_set_back_is_a_miss(cache: EmbeddingCache, tmp_path: Path) -> None:
    cache = EmbeddingCache(cache.path, clock=Clock())
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    state = path.stat()
    cache.keys([path])
    time.sleep(0.02)
    path.write_bytes(b"two")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert cache.keys([path]) == (content_key(b"two"),)


def test_a_file_that_was_just_written_is_read_again(cache: EmbeddingCache, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"picture")
    cache.keys([path])
    assert cache.info().files == 0  # a change within the clock's tick would go unseen


def test_files_that_cannot_be_read_have_no_key(cache: EmbeddingCache, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert cache.keys([tmp_path / "none.png", tmp_path / "pipe", tmp_path]) == (None, None, None)
    assert cache.get([None], SPACE) == {}


def test_names_that_are_no_text_are_kept(cache: EmbeddingCache, tmp_path: Path) -> None:
    cache = EmbeddingCache(cache.path, clock=Clock())
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png"))
    path.write_bytes(b"picture")
    assert cache.keys([path]) == cache.keys([path]) == (content_key(b"picture"),)
    assert cache.info().files == 1
    assert cache.problems == ()


def test_vectors_that_are_not_finite_are_not_kept(cache: EmbeddingCache) -> None:
    broken = np.full(16, np.nan, np.float32)
    assert cache.put({b"a": broken, b"b": unit(1)}, SPACE)[b"a"] is broken
    assert there(cache, [b"a", b"b"]) == [False, True]
    with pytest.raises(ShapeError, match=r"expected \(16,\)"):
        cache.put({b"a": unit(1, 8)}, SPACE)


@pytest.mark.parametrize("damage", ["x'00'", "zeroblob(64)", "NULL", "'text'", "randomblob(64)"])
def test_a_damaged_row_is_a_miss_and_can_be_put_again(cache: EmbeddingCache, damage: str) -> None:
    vectors = some(0, 2)
    cache.put(vectors, SPACE)
    first, second = vectors
    with sqlite3.connect(cache.path) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        value = "x'0000c07f' || zeroblob(60)" if damage == "NULL" else damage  # a NaN
        connection.execute(f"UPDATE vectors SET vector = {value} WHERE content = ?", (first,))
    connection.close()
    assert there(cache, [first, second]) == [False, True]
    cache.put({first: vectors[first]}, SPACE)
    assert there(cache, [first, second]) == [True, True]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE vectors SET vector = (SELECT vector FROM vectors WHERE content = :b) WHERE content = :a",
        "UPDATE vectors SET content = CASE content WHEN :a THEN :b ELSE :a END",
        "UPDATE vectors SET space = 3 - space",
    ],
    ids=["a row copied", "two rows swapped", "models swapped"],
)
def test_a_vector_under_the_key_of_another_is_a_miss_with_a_word(cache: EmbeddingCache, change: str) -> None:
    vectors = some(0, 2)
    other = dataclasses.replace(SPACE, model="another")
    cache.put(vectors, SPACE)
    cache.put({key: -vector for key, vector in vectors.items()}, other)
    a, b = vectors
    connection = sqlite3.connect(cache.path, isolation_level=None)
    connection.execute("DROP TABLE IF EXISTS aside")
    if "content = CASE" in change or "space = 3" in change:  # past the rule that each is there once
        connection.execute("CREATE TABLE aside AS SELECT * FROM vectors")
        connection.execute(change.replace("UPDATE vectors", "UPDATE aside"), {"a": a, "b": b})
        connection.execute("DELETE FROM vectors")
        connection.execute("INSERT INTO vectors SELECT * FROM aside")
    else:
        connection.execute(change, {"a": a, "b": b})
    connection.close()
    found = cache.get([a, b], SPACE)
    assert all(found[key].tobytes() == vectors[key].tobytes() for key in found)
    assert a not in found
    assert cache.problems == (
        f"the embedding cache {cache.path} holds embeddings that are damaged or of another picture; they are made again",
    )
    cache.put(vectors, SPACE)
    assert there(cache, [a, b]) == [True, True]


def test_a_file_under_the_key_of_another_is_read_again(cache: EmbeddingCache, tmp_path: Path) -> None:
    cache = EmbeddingCache(cache.path, clock=Clock())
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    paths = [tmp_path / "a", tmp_path / "b"]
    keys = cache.keys(paths)
    connection = sqlite3.connect(cache.path, isolation_level=None)
    connection.execute("UPDATE files SET content = ?", (keys[1],))
    connection.execute("UPDATE files SET seal = (SELECT seal FROM files WHERE path LIKE '%b')")
    connection.close()
    assert cache.keys(paths) == keys


def test_what_an_earlier_version_kept_is_made_again_with_a_word(cache: EmbeddingCache) -> None:
    """Its rows did not say which picture they are of."""
    cache.put(some(0, 3), SPACE)
    cache.close()
    connection = sqlite3.connect(cache.path, isolation_level=None)
    connection.execute("UPDATE vectors SET vector = SUBSTR(vector, 1, 64)")
    connection.execute("ALTER TABLE files DROP COLUMN seal")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    later = EmbeddingCache(cache.path, clock=Clock())
    assert not later.get(list(some(0, 3)), SPACE)
    assert later.problems == ()
    assert later.notes == (
        f"the embedding cache {cache.path} was of an earlier version; its 3 embeddings are made again",
    )
    picture = cache.path.with_name("a.png")
    picture.write_bytes(b"picture")
    later.keys([picture])
    later.put(some(0, 3), SPACE)
    assert later.info().files == 1
    again = EmbeddingCache(cache.path)
    assert there(again, list(some(0, 3))) == [True] * 3
    assert again.notes == again.problems == ()


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    clock = Clock()
    cache = EmbeddingCache(tmp_path / "a.sqlite", limit=1_500_000, clock=clock)
    space = dataclasses.replace(SPACE, width=256)
    old, middle, new = (some(1000 * start, 400, 256) for start in range(3))
    cache.put(old, space)
    clock.now += 3600
    cache.put(middle, space)
    clock.now += 3600
    cache.get(list(old), space)
    clock.now += 3600
    cache.put(new, space)
    counts = [len(cache.get(list(each), space)) for each in (old, middle, new)]
    assert counts[0] == counts[2] == 400
    assert counts[1] < 400
    assert cache.info().bytes <= 1_500_000
    assert (tmp_path / "a.sqlite").stat().st_size <= 1_500_000


def test_prune_and_clear_give_the_space_back(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "a.sqlite", clock=Clock())
    picture = tmp_path / "a.png"
    picture.write_bytes(b"picture")
    cache.keys([picture])
    cache.put(some(0, 2000), SPACE)
    assert (cache.info().embeddings, cache.info().files) == (2000, 1)
    removed = cache.prune(100_000)
    info = cache.info()
    assert 0 < removed < 2000
    assert (info.embeddings, info.files) == (2000 - removed, 0)
    assert info.bytes <= 100_000
    assert cache.clear() == 2000 - removed
    assert (cache.info().embeddings, cache.info().spaces) == (0, ())
    assert cache.prune(0) == 0
    assert cache.path.stat().st_size < 60_000
    with pytest.raises(ConfigError, match="of -1 bytes makes no sense"):
        cache.prune(-1)


def test_info_names_models(cache: EmbeddingCache) -> None:
    cache.put(some(0, 3), SPACE)
    cache.put(some(0, 2, 8), dataclasses.replace(SPACE, model="n", width=8, dtype="float16", name="other"))
    info = cache.info()
    assert [(use.name, use.dtype, use.width, use.embeddings, use.bytes) for use in info.spaces] == [
        ("mini", "float32", 16, 3, 192),
        ("other", "float16", 8, 2, 32),
    ]
    assert (info.path, info.embeddings) == (cache.path, 5)
    assert info.bytes > 4096


def test_a_limit_of_zero_keeps_nothing(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "a.sqlite", limit=0)
    cache.put(some(0, 3), SPACE)
    assert cache.info().embeddings == 0
    with pytest.raises(ConfigError, match="of -1 bytes makes no sense"):
        EmbeddingCache(tmp_path / "b.sqlite", limit=-1)


def test_the_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPCOND_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert default_path() == Path("/one/embeddings.sqlite")
    monkeypatch.delenv("CLIPCOND_CACHE")
    assert default_path() == Path("/two/clipcond/embeddings.sqlite")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the XDG specification: not to be followed
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_path() == Path("/home/someone/.cache/clipcond/embeddings.sqlite")


def test_threads_share_a_cache(cache: EmbeddingCache) -> None:
    def work(number: int) -> bool:
        vectors = some(100 * number, 100)
        cache.put(vectors, SPACE)
        return cache.get(list(vectors), SPACE).keys() == vectors.keys()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(16)))
    assert cache.info().embeddings == 1600


def test_a_fork_opens_the_database_anew(cache: EmbeddingCache) -> None:
    cache.put(some(0, 10), SPACE)
    child = os.fork()
    if child == 0:
        cache.put(some(10, 10), SPACE)
        os._exit(0 if len(cache.get(list(some(0, 20)), SPACE)) == 20 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(cache.get(list(some(0, 20)), SPACE)) == 20


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1])))
from test_embedding_cache import SPACE, EmbeddingCache, some
cache = EmbeddingCache(sys.argv[2])
for start in range(int(sys.argv[3]), int(sys.argv[4]), 25):
    cache.put(some(start, 25), SPACE)
    print(start, flush=True)
for problem in cache.problems:
    print(problem, file=sys.stderr)
"""


def writer(cache: EmbeddingCache, first: int, last: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(cache.path), str(first), str(last)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_runs_write_at_once(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "a.sqlite")
    cache.close()
    cache.path.unlink()  # both make it
    runs = [writer(cache, 0, 1000), writer(cache, 500, 1500)]
    for run in runs:
        _, told = run.communicate()
        assert (run.returncode, told) == (0, "")
    assert len(cache.get(list(some(0, 1500)), SPACE)) == 1500
    assert cache.problems == ()


@pytest.mark.parametrize("announced", [1, 7, 20])
def test_kill_9_in_the_middle_of_writing_loses_nothing_that_was_put(cache: EmbeddingCache, announced: int) -> None:
    run = writer(cache, 0, 10**9)
    assert run.stdout is not None
    last = [int(run.stdout.readline()) for _ in range(announced)][-1]
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert len(cache.get(list(some(0, last + 25)), SPACE)) == last + 25
    cache.put(some(10**9, 5), SPACE)
    assert cache.problems == ()
    with sqlite3.connect(cache.path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def damaged(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "no database":
        content[:] = b"this is text\n" * 1000
    elif how == "cut":
        del content[len(content) // 3 :]
    else:
        first = {"middle": 4096, "header": 16}[how]
        content[first:] = os.urandom(len(content) - first)
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["no database", "cut", "middle", "header"])
def test_a_damaged_database_is_moved_aside_and_named(cache: EmbeddingCache, how: str) -> None:
    vectors = some(0, 2000)
    cache.put(vectors, SPACE)
    cache.close()
    damaged(cache.path, how)
    content = cache.path.read_bytes()
    second = EmbeddingCache(cache.path)
    second.get(list(vectors), SPACE)
    second.put(vectors, SPACE)
    assert second.get(list(vectors), SPACE).keys() == vectors.keys()
    aside = cache.path.with_name("embeddings.sqlite.damaged-1")
    assert len(second.problems) == 1
    assert second.problems[0].startswith("the embedding cache was damaged (")
    assert second.problems[0].endswith(f"it is now {aside}")
    assert len(aside.read_bytes()) == len(content)


def test_damage_that_two_runs_see_moves_the_new_database_of_neither(cache: EmbeddingCache) -> None:
    vectors = some(0, 2000)
    cache.put(vectors, SPACE)
    other = EmbeddingCache(cache.path)
    other.get(list(vectors), SPACE)
    cache.close()
    other.close()
    damaged(cache.path, "middle")
    for each in (cache, other, cache, other):
        each.put(vectors, SPACE)
        assert each.get(list(vectors), SPACE).keys() == vectors.keys()
    assert len([*cache.problems, *other.problems]) == 1
    assert sorted(path.name for path in cache.path.parent.glob("*damaged*")) == ["embeddings.sqlite.damaged-1"]


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "photos.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (name)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"photos\.sqlite is a database of another program; name another file"):
        EmbeddingCache(path)
    assert path.read_bytes() == before


def test_a_database_of_a_newer_version_is_left_alone(cache: EmbeddingCache) -> None:
    cache.put(some(0, 3), SPACE)
    cache.close()
    with sqlite3.connect(cache.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    newer = EmbeddingCache(cache.path)
    assert newer.put(some(0, 3), SPACE).keys() == some(0, 3).keys()
    assert not newer.get(list(some(0, 3)), SPACE)
    assert newer.problems == (
        f"the embedding cache {cache.path} cannot be used: a newer clipcond wrote it (version 99, expected 2)",
    )


def test_a_place_that_cannot_be_written_costs_embeddings_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "a.sqlite", tmp_path):
        cache = EmbeddingCache(path)
        assert cache.put(some(0, 3), SPACE).keys() == some(0, 3).keys()
        assert not cache.get(list(some(0, 3)), SPACE)
        assert (cache.info().embeddings, cache.prune(), cache.clear()) == (0, 0, 0)
        assert len(cache.problems) == 1
        assert "cannot be used" in cache.problems[0]


def test_a_run_that_is_stuck_with_the_lock_is_waited_for_once(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipcond.encode.embedding_cache.WAIT", 1.0)
    cache.put(some(0, 3), SPACE)
    waiting = EmbeddingCache(cache.path)
    stuck = sqlite3.connect(cache.path, isolation_level=None)
    stuck.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    for start in range(10, 100, 10):
        waiting.put(some(start, 3), SPACE)
    assert time.monotonic() - began < 7  # once, not nine times
    assert waiting.problems == (f"the embedding cache {cache.path} cannot be used: database is locked",)
    stuck.close()


def test_a_copy_of_a_cache_is_a_cache(cache: EmbeddingCache, tmp_path: Path) -> None:
    cache.put(some(0, 3), SPACE)
    cache.close()
    shutil.copy(cache.path, tmp_path / "copy.sqlite")
    assert there(EmbeddingCache(tmp_path / "copy.sqlite"), list(some(0, 3))) == [True] * 3
