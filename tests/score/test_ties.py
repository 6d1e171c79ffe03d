"""Ranks with their noise: what is tied, and what no noise can turn round."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.score.ties import noise_floor, tied_ranks

SCORES = st.lists(st.floats(-1, 1), min_size=1, max_size=15)


def names(count: int) -> list[str]:
    return [f"{number:03}.png" for number in range(count)]


def test_scores_closer_than_the_noise_are_tied() -> None:
    ranks = tied_ranks([0.30, 0.25, 0.2499, 0.10], names(4), noise=1.6e-4)
    assert ranks.first == (1, 2, 2, 4)
    assert ranks.last == (1, 3, 3, 4)
    assert ranks.tied == (False, True, True, False)


def test_ties_do_not_chain_into_one() -> None:
    ranks = tied_ranks([0.30, 0.29, 0.28], names(3), noise=0.015)
    assert ranks.first == (1, 1, 2)
    assert ranks.last == (2, 3, 3)


def test_equal_scores_are_ordered_by_path_and_tied_without_any_noise() -> None:
    ranks = tied_ranks([0.2, 0.3, 0.2], ["b", "c", "a"])
    assert ranks.order == (1, 2, 0)
    assert ranks.tied == (True, False, True)


def test_the_noise_floor_is_the_largest_change_of_one_picture() -> None:
    assert noise_floor([[0.30, 0.2], [0.3001, 0.2], [0.2999, 0.2]]) == pytest.approx(2e-4)
    assert noise_floor(np.zeros((2, 0))) == 0
    with pytest.raises(ConfigError, match="runs: there is 1 scoring; expected 2 or more"):
        noise_floor([[0.1, 0.2]])


@given(SCORES, st.floats(0, 0.5), st.integers(0, 1000))
def test_only_pictures_marked_as_tied_change_places(scores: list[float], noise: float, seed: int) -> None:
    moved = np.array(scores) + np.random.default_rng(seed).uniform(-0.49, 0.49, len(scores)) * noise
    before, after = (tied_ranks(one, names(len(scores)), noise=noise) for one in (scores, moved))
    for row in range(len(scores)):
        if not before.tied[row]:
            assert before.order.index(row) == after.order.index(row)


@given(SCORES, st.floats(0, 0.5))
def test_every_place_lies_within_its_ranks(scores: list[float], noise: float) -> None:
    ranks = tied_ranks(scores, names(len(scores)), noise=noise)
    assert sorted(ranks.order) == list(range(len(scores)))
    for place, row in enumerate(ranks.order, start=1):
        assert ranks.first[row] <= place <= ranks.last[row]


@given(SCORES, st.floats(0, 0.5), st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_the_rows_order(
    scores: list[float], noise: float, shuffled: random.Random
) -> None:
    paths = names(len(scores))
    order = list(range(len(scores)))
    shuffled.shuffle(order)
    straight = tied_ranks(scores, paths, noise=noise)
    moved = tied_ranks([scores[i] for i in order], [paths[i] for i in order], noise=noise)
    assert [order[row] for row in moved.order] == list(straight.order)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="paths: expected 2 different ones, given 1 different of 2"):
        tied_ranks([1, 2], ["a", "a"])
    with pytest.raises(ConfigError, match="paths: expected 1 different ones, given 2 different of 2"):
        tied_ranks([1], ["a", "b"])
    with pytest.raises(ConfigError, match="scores: number 1 of 1 is nan"):
        tied_ranks([float("nan")], ["a"])
    with pytest.raises(ConfigError, match="noise is nan; expected a finite number of 0 or more"):
        tied_ranks([1.0], ["a"], noise=float("nan"))
