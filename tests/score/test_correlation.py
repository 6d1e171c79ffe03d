"""Rank correlations: published examples, ties, SciPy where it is installed."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import ConfigError, ShapeError
from clipcond.score.correlation import average_ranks, concordance, kendall, spearman

COLUMNS = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=25)


def test_spearman_of_the_textbook_example() -> None:
    """IQ against hours of television a week: rho = −29/165 (Wikipedia, Spearman's rank correlation coefficient)."""
    iq = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert spearman(iq, hours) == pytest.approx(-29 / 165)


def test_kendall_counts_ties() -> None:
    """tau-b of SciPy's documentation: x1 = [12, 2, 1, 12, 2], x2 = [1, 4, 7, 1, 0] gives −0.47140452079103173."""
    assert kendall([12, 2, 1, 12, 2], [1, 4, 7, 1, 0]) == pytest.approx(-0.47140452079103173)


def test_pairs_are_counted_by_their_kind() -> None:
    counts = concordance([1, 2, 2, 3, 3], [1, 1, 2, 0, 0])
    assert (counts.concordant, counts.discordant, counts.tied_first, counts.tied_second, counts.tied_both) == (
        1,
        6,
        1,
        1,
        1,
    )
    assert counts.pairs == 10


def test_pairs_are_counted_across_blocks() -> None:
    noise = np.random.default_rng(0)
    first, second = noise.integers(0, 50, (2, 1300))
    counts = concordance(first, second)
    signs = np.sign(first[:, None] - first) * np.sign(second[:, None] - second)
    assert counts.concordant == (signs > 0).sum() / 2
    assert counts.discordant == (signs < 0).sum() / 2
    assert counts.pairs == 1300 * 1299 // 2


@pytest.mark.parametrize("correlation", [kendall, spearman])
def test_a_constant_column_orders_nothing(correlation: Callable[[list[float], list[float]], float]) -> None:
    assert correlation([1, 1, 1], [1, 2, 3]) == 0.0
    assert correlation([1, 2, 3], [5, 5, 5]) == 0.0
    assert correlation([1], [2]) == 0.0
    assert correlation([], []) == 0.0


def test_no_difference_overflows() -> None:
    assert kendall([1e308, -1e308, 0], [3, 1, 2]) == spearman([1e308, -1e308, 0], [3, 1, 2]) == 1


def test_ties_take_the_mean_rank() -> None:
    assert average_ranks([10, 20, 10, 5]).tolist() == [2.5, 4, 2.5, 1]


@given(COLUMNS, st.randoms(use_true_random=False))
def test_order_and_any_growing_scale_change_nothing(rows: list[tuple[int, int]], shuffled: random.Random) -> None:
    first, second = np.array(rows, dtype=float).T
    order = list(range(len(rows)))
    shuffled.shuffle(order)
    for correlation in (kendall, spearman):
        value = correlation(first, second)
        assert -1 <= value <= 1
        assert correlation(first[order], second[order]) == value
        assert correlation(second, first) == value
        assert correlation(np.exp(first), 3 * second - 7) == value
        assert correlation(-first, second) == -value


@given(COLUMNS)
def test_they_equal_scipy(rows: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = np.array(rows).T
    if np.ptp(first) and np.ptp(second):
        assert kendall(first, second) == pytest.approx(stats.kendalltau(first, second).statistic, abs=1e-12)
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)
    assert average_ranks(first).tolist() == stats.rankdata(first).tolist()


def test_refusals() -> None:
    with pytest.raises(ShapeError, match=r"second: the shape is \(1,\); expected \(2,\)"):
        kendall([1, 2], [1])
    with pytest.raises(ConfigError, match="values: number 2 of 2 is nan"):
        spearman([1, float("nan")], [1, 2])
