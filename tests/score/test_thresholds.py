from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.score.thresholds import measured, threshold_for, wilson

SCORES = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
RIGHT = [True, True, False, True, False, False]


def test_wilson_by_the_textbook() -> None:
    share = wilson(8, 10)  # (0.8 + z²/20 ± …) / (1 + z²/10)
    assert (round(share.low, 4), round(share.high, 4)) == (0.4902, 0.9433)
    assert wilson(0, 5).low == 0
    assert wilson(5, 5).high == 1


def test_the_least_threshold_of_a_precision() -> None:
    found = threshold_for(SCORES, RIGHT, precision=1.0)
    assert found.threshold == pytest.approx(0.75)
    assert (found.named, found.right, found.positives) == (2, 2, 3)
    assert threshold_for(SCORES, RIGHT, precision=0.75).threshold == pytest.approx(0.55)


def test_the_highest_threshold_of_a_recall() -> None:
    assert threshold_for(SCORES, RIGHT, recall=0.6).threshold == pytest.approx(0.75)
    found = threshold_for(SCORES, RIGHT, recall=1.0)
    assert found.threshold == pytest.approx(0.55)
    assert found.precision is not None
    assert found.precision.value == 0.75


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=40), st.floats(0.05, 1))
def test_what_was_wanted_is_reached(examples: list[tuple[int, bool]], wanted: float) -> None:
    scores, right = (np.array(side) for side in zip(*examples, strict=True))
    assume(right.any() and not right.all())
    by_recall = threshold_for(scores, right, recall=wanted)
    assert by_recall.recall.value >= wanted - 1e-9
    higher = measured(scores, right, by_recall.threshold + 0.75)  # the next score up is one away or more
    assert higher.recall.value < wanted or higher.named == by_recall.named
    reachable = max((right & (scores >= level)).sum() / (scores >= level).sum() for level in scores)
    assume(reachable >= wanted)
    by_precision = threshold_for(scores, right, precision=wanted)
    assert by_precision.precision is not None
    assert by_precision.precision.value >= wanted - 1e-9


def test_what_cannot_be_is_one_line() -> None:
    with pytest.raises(ConfigError, match="no threshold names 100% right ones; the most is 50%"):
        threshold_for([0.5, 0.5], [True, False], precision=1.0)
    with pytest.raises(ConfigError, match="examples of both kinds"):
        threshold_for([0.5, 0.6], [True, True], recall=0.5)
    with pytest.raises(ConfigError, match="one of the two"):
        threshold_for([0.5, 0.6], [True, False])
    with pytest.raises(ConfigError, match=r"wanted share is 1\.5"):
        threshold_for([0.5, 0.6], [True, False], recall=1.5)
