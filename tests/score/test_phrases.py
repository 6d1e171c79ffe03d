"""Phrase by phrase: the weakest and the missing."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.score.phrases import phrase_scores

COSINES = st.lists(st.integers(-64, 64).map(lambda whole: whole / 256), min_size=1, max_size=8)


def test_the_weakest_phrase_below_the_others_by_the_margin_is_missing() -> None:
    found = phrase_scores([0.28, 0.20, 0.27, 0.25], margin=0.03)
    assert found.weakest == 1
    assert found.shortfalls == pytest.approx((-0.03, 0.07, -0.02, 0.02))
    assert found.missing == (1,)
    assert phrase_scores([0.28, 0.20, 0.27, 0.25], margin=0.02).missing == (1, 3)
    assert phrase_scores([0.28, 0.20, 0.27, 0.25], margin=0.08).missing == ()


def test_a_phrase_alone_and_equal_phrases_are_never_missing() -> None:
    assert phrase_scores([0.1], margin=0).missing == ()
    assert phrase_scores([0.1, 0.1], margin=0).missing == ()


@given(COSINES, st.randoms(use_true_random=False), st.integers(-8, 8))
def test_neither_the_order_of_phrases_nor_a_shift_matters(
    cosines: list[float], shuffled: random.Random, shift: int
) -> None:
    order = list(range(len(cosines)))
    shuffled.shuffle(order)
    straight = phrase_scores(cosines, margin=1 / 64)
    moved = phrase_scores([cosines[i] + shift / 64 for i in order], margin=1 / 64)
    assert {order[number] for number in moved.missing} == set(straight.missing)
    assert [moved.shortfalls[order.index(number)] for number in range(len(order))] == list(straight.shortfalls)
    assert cosines[straight.weakest] == min(cosines)
    assert all(np.isfinite(straight.shortfalls))


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="cosines: there is no phrase; expected one or more"):
        phrase_scores([], margin=0.02)
    with pytest.raises(ConfigError, match=r"margin is -0.02; expected a finite number of 0 or more"):
        phrase_scores([0.1], margin=-0.02)
    with pytest.raises(ConfigError, match="cosines: number 2 of 2 is nan"):
        phrase_scores([0.1, float("nan")], margin=0)
