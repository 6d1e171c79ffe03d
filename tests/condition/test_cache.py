"""The cache of states: what is kept, what goes first, and files that others write or break."""

from __future__ import annotations

import torch

from clipcond.condition.cache import Cache, States


def states(value: float, size: int = 4) -> States:
    return States(hidden=torch.full((1, size), value), pooled=None, projected=torch.full((2,), value))


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
