"""Near-duplicate groups: chains, blocks, order; the picture to keep."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import ConfigError, ShapeError
from clipcond.score.duplicates import Candidate, best_of_group, near_duplicates


def at_degrees(*angles: float) -> np.ndarray:
    return np.column_stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))])


def by_hand(rows: np.ndarray, threshold: float) -> set[frozenset[int]]:
    """Components by repeated merging of every pair."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    sets = [{row} for row in range(len(rows))]
    for i, j in itertools.combinations(range(len(rows)), 2):
        if unit[i] @ unit[j] >= threshold:
            first, second = (next(one for one in sets if row in one) for row in (i, j))
            if first is not second:
                first |= second
                sets.remove(second)
    return {frozenset(one) for one in sets if len(one) > 1}


def clusters(seed: int, rows: int = 40) -> np.ndarray:
    noise = np.random.default_rng(seed)
    return noise.normal(size=(6, 16))[noise.integers(0, 6, rows)] + 0.25 * noise.normal(size=(rows, 16))


def test_components_chain() -> None:
    rows = at_degrees(0, 18, 36, 90)
    assert (rows @ rows.T)[0, 1:3] == pytest.approx([0.9511, 0.8090], abs=5e-5)
    assert near_duplicates(rows) == ((0, 1, 2),)
    assert near_duplicates(rows, threshold=0.96) == ()


def test_a_pair_at_the_threshold_exactly_belongs_together() -> None:
    rows = np.array([[1.0, 0.0], [0.94, (1 - 0.94**2) ** 0.5]])
    assert near_duplicates(rows, threshold=0.94) == ((0, 1),)
    assert near_duplicates(rows, threshold=0.94 + 1e-9) == ()  # closer than float32 can tell


@pytest.mark.parametrize("seed", range(20))
def test_what_float32_cannot_tell_is_decided_in_float64(seed: int) -> None:
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(64, 2)))
    first, across = axes.T
    for cosine, together in ((0.94 + 1e-10, True), (0.94 - 1e-10, False)):
        pair = [first, cosine * first + (1 - cosine**2) ** 0.5 * across]
        assert bool(near_duplicates(pair, threshold=0.94)) is together


@given(st.integers(0, 10_000), st.integers(1, 41), st.floats(0.5, 0.99))
def test_groups_are_the_components_whatever_the_block(seed: int, block: int, threshold: float) -> None:
    rows = clusters(seed)
    groups = near_duplicates(rows, threshold=threshold, block=block)
    assert groups == near_duplicates(rows, threshold=threshold)
    assert {frozenset(group) for group in groups} == by_hand(rows, threshold)
    assert list(groups) == sorted(tuple(sorted(group)) for group in groups)


@given(st.integers(0, 10_000), st.randoms(use_true_random=False), st.floats(1e-3, 1e3))
def test_neither_the_order_nor_the_length_of_rows_matters(seed: int, shuffled: random.Random, size: float) -> None:
    rows = clusters(seed)
    order = list(range(len(rows)))
    shuffled.shuffle(order)
    moved = near_duplicates(rows[order] * size, threshold=0.8)
    assert {frozenset(order[row] for row in group) for group in moved} == by_hand(rows, 0.8)


def test_many_equal_pictures_are_one_group() -> None:
    assert near_duplicates(np.ones((500, 3)), block=64) == (tuple(range(500)),)


def test_a_long_chain_through_many_blocks_is_one_group() -> None:
    degrees = np.linspace(0, 350, 300)
    shuffled = np.random.default_rng(0).permutation(300)
    assert near_duplicates(at_degrees(*degrees[shuffled]), threshold=0.9995, block=7) == (tuple(range(300)),)


@pytest.mark.parametrize("rows", [np.ones((0, 4)), np.ones((1, 4))])
def test_fewer_than_two_rows_have_no_duplicates(rows: np.ndarray) -> None:
    assert near_duplicates(rows) == ()


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"threshold is 1.5; expected a cosine from -1 to 1"):
        near_duplicates(np.eye(2), threshold=1.5)
    with pytest.raises(ConfigError, match="block is 0; expected 1 or more"):
        near_duplicates(np.eye(2), block=0)
    with pytest.raises(ShapeError, match=r"images: the shape is \(2,\); expected \(N, P\)"):
        near_duplicates(np.ones(2))
    with pytest.raises(ConfigError, match="images: number 1 of 4 is nan"):
        near_duplicates(np.full((2, 2), np.nan))


def candidate(path: str, score: float = 0.3, pixels: int = 100, modified: float = 5.0) -> Candidate:
    return Candidate(path=path, score=score, pixels=pixels, modified=modified)


RULE = [
    candidate("best", score=0.31, pixels=1),
    candidate("large", pixels=900, modified=9),
    candidate("old", modified=1),
    candidate("a"),
    candidate("b"),
]


def test_the_best_of_a_group_is_by_score_then_pixels_then_age_then_path() -> None:
    left = list(RULE)
    for expected in ("best", "large", "old", "a", "b"):
        index = best_of_group(left)
        assert left.pop(index).path == expected


def test_scores_within_the_noise_of_the_best_do_not_decide() -> None:
    assert RULE[best_of_group(RULE, noise=0.02)].path == "large"


@given(st.permutations(RULE), st.sampled_from([0.0, 0.02]))
def test_the_best_does_not_depend_on_the_order(group: list[Candidate], noise: float) -> None:
    assert group[best_of_group(group, noise=noise)] == RULE[best_of_group(RULE, noise=noise)]


def test_a_group_needs_a_picture_and_numbers() -> None:
    with pytest.raises(ConfigError, match="there is no picture to choose from"):
        best_of_group([])
    with pytest.raises(ConfigError, match=r"the score of x.png is no finite number"):
        best_of_group([candidate("x.png", score=float("nan"))])
    with pytest.raises(ConfigError, match="noise is -1; expected a finite number of 0 or more"):
        best_of_group(RULE, noise=-1)
