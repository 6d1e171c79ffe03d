"""z-scores and percentiles within a prompt."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.score.normalise import percentiles, z_scores

SCORES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)


def test_z_scores_use_the_population_deviation_within_the_prompt() -> None:
    z = z_scores([1, 10, 3, 30, 5, 20], ["a", "b"] * 3)
    assert z == pytest.approx([-1.224745, -1.224745, 0, 1.224745, 1.224745, 0], abs=5e-7)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e300, -3.7])
def test_a_constant_column_is_0(value: float) -> None:
    assert z_scores([value] * 3 + [5.0], ["a", "a", "a", None]).tolist() == [0, 0, 0, 0]


def test_values_that_differ_by_rounding_alone_are_constant() -> None:
    assert z_scores([0.3, 0.1 + 0.2, 0.3], ["a"] * 3).tolist() == [0, 0, 0]


def test_no_square_overflows_or_vanishes() -> None:
    assert z_scores([1e300, -1e300], "aa").tolist() == [1, -1]
    assert z_scores([1e-300, 3e-300], "aa") == pytest.approx([-1, 1])


@given(SCORES, st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_bit(scores: list[float], groups: int, shuffled: random.Random) -> None:
    prompts = [str(row % (groups + 1)) for row in range(len(scores))]
    order = list(range(len(scores)))
    shuffled.shuffle(order)
    for normalise in (z_scores, percentiles):
        straight = normalise(scores, prompts)
        assert normalise([scores[i] for i in order], [prompts[i] for i in order]).tolist() == straight[order].tolist()


@given(SCORES, st.floats(0.01, 100), st.integers(-100, 100))
def test_neither_scale_nor_shift_changes_a_z_score(scores: list[float], factor: float, shift: float) -> None:
    assume(np.ptp(scores) > 1)
    moved = np.array(scores) * factor + shift
    prompts = ["a"] * len(scores)
    assert z_scores(moved, prompts) == pytest.approx(z_scores(scores, prompts), abs=1e-6)


@given(SCORES)
def test_z_scores_have_mean_0_and_deviation_1(scores: list[float]) -> None:
    assume(np.ptp(scores) > 1e-3)
    z = z_scores(scores, ["a"] * len(scores))
    assert z.mean() == pytest.approx(0, abs=1e-9)
    assert z.std() == pytest.approx(1)


def test_percentiles_count_ties_half() -> None:
    assert percentiles([1, 2, 2, 3], ["a"] * 4).tolist() == [12.5, 50.0, 50.0, 87.5]
    assert percentiles([7], [None]).tolist() == [50.0]


@given(SCORES)
def test_percentiles_average_50(scores: list[float]) -> None:
    assert percentiles(scores, ["a"] * len(scores)).mean() == pytest.approx(50)


def test_nan_is_refused_by_its_place() -> None:
    with pytest.raises(ConfigError, match="scores: number 2 of 2 is nan"):
        z_scores([1, float("nan")], "aa")
    with pytest.raises(ConfigError, match="scores: number 1 of 1 is inf"):
        percentiles([float("inf")], "a")
