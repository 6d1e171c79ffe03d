"""Prompts and pictures assigned to each other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.score.assign import best_pairs, one_to_one


def test_the_best_both_ways_of_equals_the_first() -> None:
    pairs = best_pairs([[0.3, 0.2, 0.3], [0.1, 0.2, 0.4]])
    assert pairs.picture_of == (0, 2)
    assert pairs.prompt_of == (0, 0, 1)


def test_one_to_one_gives_up_a_best_for_the_larger_sum() -> None:
    """Both prompts like picture 0; the second would lose more without it."""
    assert one_to_one([[0.30, 0.29], [0.30, 0.10]]) == ((0, 1), (1, 0))


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 999), st.booleans())
def test_the_sum_is_the_largest_there_is(prompts: int, pictures: int, seed: int, whole: bool) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.integers(-3, 4, (prompts, pictures)).astype(float) if whole else draw.normal(size=(prompts, pictures))
    pairs = one_to_one(scores)
    assert len(pairs) == min(prompts, pictures)
    assert [len(set(side)) for side in zip(*pairs, strict=True)] == [len(pairs)] * 2
    table = scores if prompts <= pictures else scores.T
    best = max(
        sum(table[row, column] for row, column in enumerate(columns))
        for columns in itertools.permutations(range(table.shape[1]), len(table))
    )
    assert sum(scores[pair] for pair in pairs) == pytest.approx(best)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 999))
def test_it_equals_scipy(prompts: int, pictures: int, seed: int) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    scores = np.random.default_rng(seed).normal(size=(prompts, pictures))
    rows, columns = optimize.linear_sum_assignment(scores, maximize=True)
    assert list(one_to_one(scores)) == list(zip(rows.tolist(), columns.tolist(), strict=True))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 999))
def test_neither_order_nor_scale_matters_where_no_two_scores_are_equal(prompts: int, pictures: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(prompts, pictures))
    rows, columns = draw.permutation(prompts), draw.permutation(pictures)
    moved = one_to_one(100 * scores[np.ix_(rows, columns)] + 7)
    assert {(int(rows[prompt]), int(columns[picture])) for prompt, picture in moved} == set(one_to_one(scores))


def test_three_hundred_of_each_are_assigned_at_once() -> None:
    scores = np.random.default_rng(0).normal(size=(300, 300))
    truth = np.random.default_rng(1).permutation(300)
    scores[np.arange(300), truth] += 10
    assert one_to_one(scores) == tuple(enumerate(truth.tolist()))


def test_refusals() -> None:
    with pytest.raises(
        ConfigError, match=r"scores: the shape is \(0, 3\); expected one prompt and one picture or more"
    ):
        one_to_one(np.zeros((0, 3)))
    with pytest.raises(ConfigError, match="scores: number 2 of 2 is inf"):
        best_pairs([[1, float("inf")]])
