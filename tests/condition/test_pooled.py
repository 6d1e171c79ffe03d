"""Pooled vectors of several chunks, by policy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipcond.condition.pooled import POLICIES, pool
from clipcond.errors import ConfigError, ShapeError

VECTORS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]])


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("first", [1.0, 0.0]), ("last", [4.0, 4.0]), ("mean", [5 / 3, 2.0]), ("weighted", [(75 + 20) / 150, (140 + 20) / 150])],
)  # fmt: skip
def test_policies(policy: str, expected: list[float]) -> None:
    torch.testing.assert_close(pool(VECTORS, [75, 70, 5], policy), torch.tensor(expected))


@pytest.mark.property
@given(st.sampled_from(POLICIES), st.integers(0, 75), st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
def test_one_chunk_keeps_its_vector_to_the_last_bit(policy: str, length: int, dtype: torch.dtype) -> None:
    pooled = torch.randn(1, 8, generator=torch.Generator().manual_seed(length)).to(dtype)
    out = pool(pooled, [length], policy)
    assert out.dtype == dtype
    assert torch.equal(out, pooled[0])


def test_a_half_is_averaged_in_full_and_comes_back_as_a_half() -> None:
    pooled = torch.full((3, 4), 60_000.0).half()  # the sum would be beyond the largest float16
    out = pool(pooled, [1, 2, 3], "weighted")
    assert out.dtype == torch.float16
    torch.testing.assert_close(out, pooled[0])


def test_chunks_without_content_count_alike() -> None:
    torch.testing.assert_close(pool(VECTORS, [0, 0, 0], "weighted"), pool(VECTORS, [5, 5, 5], "mean"))
    torch.testing.assert_close(pool(VECTORS, [0, 9, 0], "weighted"), VECTORS[1])


def test_misfits_are_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown policy for pooled vectors 'fist'; did you mean 'first'\?"):
        pool(VECTORS, [1, 2, 3], "fist")
    with pytest.raises(ConfigError, match=r"unknown policy for pooled vectors 'xyz'; there are first, last, mean, wei"):
        pool(VECTORS, [1, 2, 3], "xyz")
    with pytest.raises(ShapeError, match=r"pooled: axis K is 3, expected 2 in \(K, P\)"):
        pool(VECTORS, [1, 2], "mean")
    with pytest.raises(ShapeError, match="pooled: axis K is 0, expected at least 1"):
        pool(VECTORS[:0], [], "mean")
    with pytest.raises(ConfigError, match=r"lengths: \[1, -2, 3\], expected none below 0"):
        pool(VECTORS, [1, -2, 3], "weighted")
