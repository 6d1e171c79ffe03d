"""The arithmetic of operations: ends bit for bit, arcs by hand, and what noise leaves alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clipcond.condition.algebra import lerp, slerp, slide, vary


def states(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_ends_are_the_arguments_bit_for_bit(dtype: torch.dtype) -> None:
    x, y, e = (states(seed, dtype) for seed in range(3))
    for at, end in ((0, x), (1, y), (0.0, x), (1.0, y)):
        assert torch.equal(lerp(x, y, at), end)
        assert torch.equal(slerp(x, y, at, e), end)
        assert torch.equal(slerp(x, y, at), end)
        assert torch.equal(slide(x, x, x, y, at), end)
    assert vary(x, e, 0, 1) is x
    assert lerp(x, y, 0.5).dtype == slerp(x, y, 0.5, e).dtype == vary(x, e, 0.5, 0).dtype == dtype


def test_an_arc_keeps_its_distance_from_its_middle() -> None:
    e = states(0)
    x, y = (e + 3 * torch.nn.functional.normalize(states(seed), dim=-1) for seed in (1, 2))
    for t in (0.25, 0.5, 0.9):
        assert torch.allclose((slerp(x, y, t, e) - e).norm(dim=-1), torch.tensor(3.0), atol=1e-5)
    half = torch.nn.functional.normalize(x + y - 2 * e, dim=-1)
    assert torch.allclose(slerp(x, y, 0.5, e), e + 3 * half, atol=1e-5)


def test_a_third_of_a_right_angle() -> None:
    x, y = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])
    expected = torch.tensor([[[2 * math.cos(math.pi / 6), 2 * math.sin(math.pi / 6)]]])
    assert torch.allclose(slerp(x, y, 1 / 3), expected, atol=1e-6)


def test_vectors_in_one_line_go_along_it() -> None:
    e = states(0)
    x = e.clone()
    x[:, 1:] += 1
    for y in (x, e + 2 * (x - e), e - (x - e)):  # the same, parallel, opposite
        assert torch.allclose(slerp(x, y, 0.3, e), lerp(x, y, 0.3), atol=1e-5)


def test_a_slider_moves_what_was_moved_before_as_far() -> None:
    x, low, high, other = (states(seed) for seed in range(4))
    assert torch.allclose(slide(other, x, low, high, 0.5), other + (low + high) / 2 - x, atol=1e-6)


def test_noise_is_of_its_seed_and_of_the_size_of_what_is_said() -> None:
    e, x = states(0), states(0)
    x[:, 1:] += 5  # the first position says nothing
    once = vary(x, e, 0.1, 7)
    assert torch.equal(once, vary(x, e, 0.1, 7))
    assert torch.equal(once[:, 0], x[:, 0])
    assert torch.equal(once[1], vary(x[1:], e[1:], 0.1, 8)[0])
    assert not torch.equal(once, vary(x, e, 0.1, 8))
    large = torch.full((1, 400, 8), 5.0)
    assert (vary(large, torch.zeros_like(large), 0.1, 0) - large).std() == pytest.approx(0.5, rel=0.05)
