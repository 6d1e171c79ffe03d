"""Intervals and paired tests: exact small cases, coverage, order, SciPy where it is installed."""

from __future__ import annotations

import random
from math import erfc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.score.statistics import bootstrap_mean, bootstrap_ratio, paired_comparison

NUMBERS = st.lists(st.integers(-20, 20).map(lambda whole: whole / 8), min_size=1, max_size=12)


def test_an_interval_holds_its_mean_and_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(0).normal(size=400)
    interval = bootstrap_mean(values)
    assert interval.value == pytest.approx(values.mean())
    error = 1.96 * values.std() / 20
    assert (interval.low, interval.high) == pytest.approx((values.mean() - error, values.mean() + error), abs=error / 8)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    noise = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        interval = bootstrap_mean(noise.normal(size=50), level=0.9, resamples=300)
        covered += interval.low <= 0 <= interval.high
    assert 168 <= covered <= 192


def test_clusters_are_drawn_whole() -> None:
    """Ten equal copies of each of 20 values say no more than the 20."""
    values = np.random.default_rng(2).normal(size=20)
    copies, keys = np.repeat(values, 10), np.repeat(np.arange(20), 10).tolist()
    alone, together, naive = bootstrap_mean(values), bootstrap_mean(copies, keys), bootstrap_mean(copies)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))
    assert naive.high - naive.low < 0.5 * (together.high - together.low)


def test_a_mean_over_clusters_is_that_of_the_rows() -> None:
    assert bootstrap_mean([1, 1, 1, 5], ["a", "a", "a", "b"]).value == 2


@given(NUMBERS, st.randoms(use_true_random=False), st.integers(0, 5))
@settings(max_examples=30)
def test_the_order_of_rows_changes_no_bit(values: list[float], shuffled: random.Random, seed: int) -> None:
    order = list(range(len(values)))
    shuffled.shuffle(order)
    keys = [row % 3 for row in range(len(values))]
    moved, moved_keys = [values[i] for i in order], [keys[i] for i in order]
    assert bootstrap_mean(moved, seed=seed) == bootstrap_mean(values, seed=seed)
    assert bootstrap_mean(moved, moved_keys, seed=seed) == bootstrap_mean(values, keys, seed=seed)
    zeros = [0.0] * len(values)
    assert paired_comparison(moved, zeros, seed=seed) == paired_comparison(values, zeros, seed=seed)


def test_the_seed_alone_changes_the_draw() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_five_wins_of_five_have_p_2_of_32() -> None:
    result = paired_comparison([0.31, 0.30, 0.33, 0.29, 0.32], [0.30, 0.28, 0.30, 0.25, 0.27])
    assert result.p_value == 2 / 32
    assert result.exact
    assert (result.wins, result.ties, result.losses, result.win_rate) == (5, 0, 0, 1.0)
    assert result.difference.value == pytest.approx(0.03)


def test_darwins_plants() -> None:
    """Cross- against self-fertilised: 863 of 32,768 one-sided (Fisher 1935, The Design of Experiments, section 21)."""
    differences = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    result = paired_comparison(differences, [0] * 15)
    assert result.p_value == pytest.approx(2 * 863 / 32768)
    assert (result.wins, result.losses) == (13, 2)


def test_more_prompts_are_flipped_at_random_and_agree_with_the_normal_theory() -> None:
    differences = np.random.default_rng(5).normal(0.2, 1, size=120)
    result = paired_comparison(differences, np.zeros(120))
    assert not result.exact
    z = abs(differences.sum()) / np.sqrt(np.square(differences).sum())
    assert result.p_value == pytest.approx(erfc(z / 2**0.5), abs=0.01)


def test_equal_generators_are_equal() -> None:
    result = paired_comparison([0.3, 0.2], [0.3, 0.2])
    assert (result.p_value, result.win_rate, result.ties) == (1.0, 0.5, 2)
    assert (result.difference.low, result.difference.high) == (0, 0)


def test_differences_within_the_noise_are_ties() -> None:
    result = paired_comparison([0.3001, 0.35, 0.1], [0.3, 0.3, 0.3], noise=1.6e-4)
    assert (result.wins, result.ties, result.losses, result.win_rate) == (1, 1, 1, 0.5)


@given(NUMBERS, st.sampled_from([0.5, 4.0, 1024.0]))
@settings(max_examples=30)
def test_swapping_the_generators_and_scaling_keep_the_p_value(values: list[float], size: float) -> None:
    zeros = [0.0] * len(values)
    there, back = paired_comparison(values, zeros), paired_comparison(zeros, [size * value for value in values])
    assert 0 < there.p_value <= 1
    assert there.p_value == back.p_value
    assert there.win_rate == pytest.approx(1 - back.win_rate)


@given(NUMBERS)
@settings(max_examples=30)
def test_exact_p_values_equal_scipys(values: list[float]) -> None:
    stats = pytest.importorskip("scipy.stats")
    if len(values) < 2:
        return
    theirs = stats.permutation_test(
        (np.array(values), np.zeros(len(values))),
        lambda a, b, axis: np.abs((a - b).mean(axis=axis)),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2 ** len(values),
        alternative="greater",
    )
    assert paired_comparison(values, [0.0] * len(values)).p_value == pytest.approx(theirs.pvalue, abs=1e-12)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="there is no value; a mean needs one or more"):
        bootstrap_mean([])
    with pytest.raises(ConfigError, match="level is 1; expected more than 0 and less than 1"):
        bootstrap_mean([1], level=1)
    with pytest.raises(ConfigError, match="counts: cluster 2 has 0; expected more than 0"):
        bootstrap_ratio([1, 1], [1, 0])
    with pytest.raises(ConfigError, match="resamples is 0; expected 1 or more"):
        bootstrap_mean([1], resamples=0)
    with pytest.raises(ConfigError, match="first: there is no prompt to compare on"):
        paired_comparison([], [])
    with pytest.raises(ConfigError, match="second: number 1 of 1 is nan"):
        paired_comparison([1], [float("nan")])
