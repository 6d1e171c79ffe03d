"""The arithmetic of maps, strengths, shares and cells, against slow ways to the same."""

from __future__ import annotations

import math

import pytest
import torch

from clipcond.diffusion.explain.effects import cells, concentrated, effect_maps, share, strengths
from clipcond.errors import ShapeError


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_map_is_the_norm_over_channels_place_by_place() -> None:
    whole, masked = noise(4, 3, 5), noise(2, 4, 3, 5, seed=1)
    maps = effect_maps(whole, masked)
    assert maps.shape == (2, 3, 5)
    slow = math.sqrt(sum(float(masked[1, c, 2, 4] - whole[c, 2, 4]) ** 2 for c in range(4)))
    assert float(maps[1, 2, 4]) == pytest.approx(slow, rel=1e-6)
    with pytest.raises(ShapeError, match="masked"):
        effect_maps(whole, masked[:, :3])


def test_strengths_are_relative_to_the_whole_prompt() -> None:
    maps = torch.stack([torch.full((2, 2), 3.0), torch.zeros(2, 2)])
    assert strengths(maps, torch.full((2, 2), 6.0)).tolist() == [0.5, 0.0]
    assert strengths(maps, torch.zeros(2, 2)).tolist() == [0.0, 0.0]


def test_shares_of_parts_add_up_to_one() -> None:
    effect, part = noise(3, 4, 2, 2), noise(3, 4, 2, 2, seed=1)
    torch.testing.assert_close(share(part, effect) + share(effect - part, effect), torch.ones(3))
    assert share(part, torch.zeros_like(effect)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("side", [3, 8, 9, 64])
def test_cells_are_means_also_where_a_place_lies_on_a_border(side: int) -> None:
    one = noise(1, side, side).abs()
    grid = cells(one)[0]
    fine = one[0].repeat_interleave(3, 0).repeat_interleave(3, 1)
    assert float(grid[1, 2]) == pytest.approx(float(fine[side : 2 * side, 2 * side :].mean()), rel=1e-5)
    assert float(grid.mean()) == pytest.approx(float(one.mean()), rel=1e-5)


def test_concentrated_maps_have_no_floor_and_add_up_to_one() -> None:
    one = torch.full((1, 4, 4), 2.0)
    one[0, 3, 0] = 5.0
    made = concentrated(one)
    assert float(made[0, 3, 0]) == 1
    assert float(made.sum()) == 1
    assert concentrated(torch.ones(1, 2, 2)).flatten().tolist() == [0.25] * 4
