"""The cache of states: what is kept, what goes first, and files that others write or break."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from clipcond.condition.cache import Cache, States
from clipcond.errors import ConfigError


def states(value: float, size: int = 4) -> States:
    return States(hidden=torch.full((1, size), value), pooled=None, projected=torch.full((2,), value))


def same(a: States | None, b: States | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.tensors.keys() == b.tensors.keys() and all(torch.equal(a.tensors[n], b.tensors[n]) for n in a.tensors)


def test_gives_back_what_was_put() -> None:
    cache = Cache()
    assert cache.get("a") is None
    cache.put("a", states(1))
    found = cache.get("a")
    assert found is not None
    assert found.hidden.tolist() == [[1, 1, 1, 1]]
    assert found.pooled is None
    assert found.projected is not None
    assert found.projected.tolist() == [1, 1]


def test_what_was_unused_for_longest_goes_first() -> None:
    cache = Cache(limit=2 * states(0).bytes)
    cache.put("a", states(1))
    cache.put("b", states(2))
    cache.get("a")
    cache.put("c", states(3))
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]
    cache.put("big", states(4, size=100))
    assert cache.get("big") is None
    assert cache.get("a") is not None


def test_keeps_a_copy_and_not_the_batch_it_was_part_of() -> None:
    batch, cache = torch.zeros(10, 1, 4), Cache()
    cache.put("a", States(hidden=batch[0], pooled=None, projected=None))
    found = cache.get("a")
    assert found is not None
    assert found.hidden.untyped_storage().nbytes() == 16
    batch.fill_(7)
    assert not found.hidden.any()


def test_a_file_under_the_key_of_another_is_a_miss(tmp_path: Path) -> None:
    cache = Cache(folder=tmp_path)
    cache.put("a", states(1))
    cache.put("b", states(2))
    one, two = (tmp_path / f"{key}.states.safetensors" for key in "ab")
    two.write_bytes(one.read_bytes())
    again = Cache(folder=tmp_path)
    assert again.get("b") is None
    assert same(again.get("a"), states(1))
    again.put("b", states(2))
    assert same(Cache(folder=tmp_path).get("b"), states(2))


def test_putting_again_replaces() -> None:
    cache = Cache(limit=states(0).bytes)
    cache.put("a", states(1))
    cache.put("a", states(2))
    assert same(cache.get("a"), states(2))


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.integers(1, 9))), st.integers(0, 200))
@pytest.mark.property
def test_behaves_as_a_list_of_what_was_used_last(steps: list[tuple[str, bool, int]], limit: int) -> None:
    cache, held = Cache(limit=limit), OrderedDict[str, States]()
    for key, putting, size in steps:
        if putting:
            value = states(size, size)
            cache.put(key, value)
            held.pop(key, None)
            if value.bytes <= limit:
                held[key] = value
            while sum(each.bytes for each in held.values()) > limit:
                held.popitem(last=False)
        else:
            assert same(cache.get(key), held.get(key))
            if key in held:
                held.move_to_end(key)


def test_refuses_limits_below_zero() -> None:
    with pytest.raises(ConfigError, match="cache: limits of -1 and 5 bytes, expected 0 or more"):
        Cache(limit=-1, folder_limit=5)
    with pytest.raises(ConfigError, match="cache: limits of 1 and -5 bytes"):
        Cache(limit=1, folder_limit=-5)


def test_refuses_a_file_for_its_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cache: .*file is a file; name a folder"):
        Cache(folder=tmp_path / "file")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_folder_outlives_the_cache(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = tmp_path / "not" / "yet"
    value = States(hidden=torch.rand(3, 4).to(dtype), pooled=torch.rand(4).to(dtype), projected=None)
    Cache(folder=folder).put("a", value)
    found = Cache(folder=folder).get("a")
    assert same(found, value)
    assert found is not None
    assert found.hidden.dtype == dtype
    assert Cache(folder=folder).get("b") is None
    assert [path.name for path in folder.iterdir()] == ["a.states.safetensors"]


def test_what_comes_from_disk_is_then_held_in_memory(tmp_path: Path) -> None:
    Cache(folder=tmp_path).put("a", states(1))
    cache = Cache(folder=tmp_path)
    cache.get("a")
    (tmp_path / "a.states.safetensors").unlink()
    assert same(cache.get("a"), states(1))


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@pytest.mark.property
def test_a_damaged_file_is_a_miss(tmp_path: Path, data: st.DataObject) -> None:
    value, file = states(1.5), tmp_path / "a.states.safetensors"
    Cache(folder=tmp_path).put("a", value)
    whole = file.read_bytes()
    kind = data.draw(st.sampled_from(["cut", "changed", "other"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    if kind == "cut":
        file.write_bytes(whole[:at])
    elif kind == "changed":
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    else:
        file.write_bytes(data.draw(st.binary(max_size=100)))
    cache = Cache(folder=tmp_path)
    # blanks that pad the header may change without harm
    assert cache.get("a") is None or (kind == "changed" and same(cache.get("a"), value))
    cache.put("a", value)
    assert same(Cache(folder=tmp_path).get("a"), value)


def test_files_of_another_make_are_a_miss(tmp_path: Path) -> None:
    (tmp_path / "a.states.safetensors").write_bytes(save({"hidden": torch.ones(1, 2)}))
    assert Cache(folder=tmp_path).get("a") is None


def test_a_folder_keeps_what_was_used_last(tmp_path: Path) -> None:
    Cache(folder=tmp_path).put("size", states(0))
    size = (tmp_path / "size.states.safetensors").stat().st_size
    (tmp_path / "size.states.safetensors").unlink()
    (tmp_path / "notes.txt").write_text("not ours" * size)
    for age, key in enumerate("abcdefghij"):
        Cache(folder=tmp_path).put(key, states(age))
        os.utime(tmp_path / f"{key}.states.safetensors", (1000 + age, 1000 + age))
    Cache(folder=tmp_path).get("a")
    Cache(folder=tmp_path, folder_limit=10 * size).put("new", states(11))
    left = {path.name.removesuffix(".states.safetensors") for path in tmp_path.iterdir()}
    assert left == {"a", "d", "e", "f", "g", "h", "i", "j", "new", "notes.txt"}  # nine tenths of the limit


def test_one_process_never_passes_the_limit_and_two_hardly(tmp_path: Path) -> None:
    caches = [Cache(limit=0, folder=tmp_path, folder_limit=50_000) for _ in range(2)]
    for number in range(300):
        caches[number % 2].put(f"k{number}", states(number, size=100))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 50_000 * 1.1
    alone = Cache(limit=0, folder=tmp_path, folder_limit=40_000)
    for number in range(100):
        alone.put(f"k{number}", states(number, size=100))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 40_000
    Cache(limit=0, folder=tmp_path, folder_limit=100).put("big", states(0, size=100))
    assert not (tmp_path / "big.states.safetensors").exists()


def test_abandoned_files_go_and_unfinished_ones_stay(tmp_path: Path) -> None:
    for name, used in {"old": 1000, "new": None}.items():
        path = tmp_path / f"{name}.states.safetensors.unfinished"
        path.write_bytes(b"half")
        if used:
            os.utime(path, (used, used))
    Cache(folder=tmp_path).put("a", states(1))
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"a", "new"}


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    cache = Cache(folder=tmp_path)
    monkeypatch.setattr(os, "replace", full)
    cache.put("a", states(1))
    assert same(cache.get("a"), states(1))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_is_no_cache_and_no_error(tmp_path: Path) -> None:
    cache = Cache(folder=tmp_path / "file" / "states")
    (tmp_path / "file").write_text("")  # in the way by the time it is needed
    cache.put("a", states(1))
    assert same(cache.get("a"), states(1))
    assert cache.get("b") is None


WRITER = """
import sys, torch
from clipcond.condition.cache import Cache, States
for number in range(200):
    key = f"k{number % 7}"
    cache = Cache(limit=0, folder=sys.argv[1], folder_limit=30_000)
    found = cache.get(key)
    if found is not None:
        assert found.hidden.eq(number % 7).all() and found.hidden.shape == (30, 40), found
    cache.put(key, States(hidden=torch.full((30, 40), float(number % 7)), pooled=None, projected=None))
"""


def test_two_processes_at_once_do_no_harm(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert not list(tmp_path.glob("*.unfinished"))


def test_many_threads_at_once_do_no_harm() -> None:
    cache = Cache(limit=3 * states(0).bytes)

    def use(number: int) -> bool:
        key = "abcdef"[number % 6]
        cache.put(key, states(number % 6))
        found = cache.get(key)
        return found is None or same(found, states(number % 6))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(use, range(600)))
    assert sum(cache.get(key) is not None for key in "abcdef") == 3
