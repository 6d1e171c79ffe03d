"""Krippendorff's alpha: the published example, a second way to compute it, invariances."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.score.reliability import krippendorff_alpha

# four observers, twelve units, 0 where one did not rate (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability)
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
)
LEVELS = ("nominal", "ordinal", "interval")
RATED = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), min_size=2, max_size=25)


def by_coincidences(values: list[int], units: list[int], level: str) -> float:
    """The definition, with the matrix of coincidences."""
    kept = [(v, u) for v, u in zip(values, units, strict=True) if units.count(u) > 1]
    counts = {c: sum(v == c for v, _ in kept) for c in {v for v, _ in kept}}

    def distance(c: int, k: int) -> float:
        low, high = min(c, k), max(c, k)
        between = sum(count for value, count in counts.items() if low <= value <= high)
        return {
            "nominal": float(c != k),
            "ordinal": (between - (counts[c] + counts[k]) / 2) ** 2,
            "interval": float(c - k) ** 2,
        }[level]

    observed = 0.0
    for unit in {u for _, u in kept}:
        own = [v for v, u in kept if u == unit]
        observed += sum(distance(a, b) for a, b in itertools.permutations(own, 2)) / (len(own) - 1)
    expected = sum(counts[c] * counts[k] * distance(c, k) for c in counts for k in counts)
    return 1 - (len(kept) - 1) * observed / expected


@pytest.mark.parametrize(("level", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_the_published_example(level: str, expected: float) -> None:
    rows, units = np.nonzero(OBSERVERS)
    assert krippendorff_alpha(OBSERVERS[rows, units], units.tolist(), level=level) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("level", LEVELS)
def test_perfect_agreement_is_1_and_chance_about_0(level: str) -> None:
    assert krippendorff_alpha([1, 1, 2, 2, 5, 5], "aabbcc", level=level) == 1
    noise = np.random.default_rng(0).integers(1, 6, 4000)
    assert krippendorff_alpha(noise, (np.arange(4000) // 2).tolist(), level=level) == pytest.approx(0, abs=0.06)


@pytest.mark.parametrize("level", LEVELS)
@given(RATED, st.randoms(use_true_random=False))
def test_it_is_the_definition_in_any_order(level: str, rated: list[tuple[int, int]], shuffled: random.Random) -> None:
    units, values = map(list, zip(*rated, strict=True))
    assume(len({value for value, unit in zip(values, units, strict=True) if units.count(unit) > 1}) > 1)
    alpha = krippendorff_alpha(values, units, level=level)
    assert alpha == pytest.approx(by_coincidences(values, units, level), abs=1e-9)
    shuffled.shuffle(rated)
    units, values = map(list, zip(*rated, strict=True))
    assert krippendorff_alpha(values, units, level=level) == pytest.approx(alpha, abs=1e-9)
    if level != "ordinal":
        scaled = [100 * value - 3 for value in values]
        assert krippendorff_alpha(scaled, units, level=level) == pytest.approx(alpha, abs=1e-9)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="no level 'ratio'; expected one of nominal, ordinal, interval"):
        krippendorff_alpha([1, 2], "aa", level="ratio")
    with pytest.raises(ConfigError, match="no picture was rated twice; alpha needs two ratings of one picture or more"):
        krippendorff_alpha([1, 2], "ab", level="nominal")
    with pytest.raises(ConfigError, match="every rating is 3; alpha is defined only where ratings differ"):
        krippendorff_alpha([3, 3, 5], "aab", level="nominal")
    with pytest.raises(ConfigError, match="ratings: number 1 of 2 is nan"):
        krippendorff_alpha([float("nan"), 1], "aa", level="nominal")
