from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import ConfigError, ShapeError
from clipcond.score.classification import accuracy, calibration_error, compare_with_truth

TABLE = [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2]]


def test_by_hand() -> None:
    found = compare_with_truth(TABLE, [0, 1, 2, 1])
    assert found.accuracy == accuracy(TABLE, [0, 1, 2, 1]) == 0.5
    assert found.top5 == 1.0
    np.testing.assert_array_equal(found.confusion, [[1, 0, 0], [2, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(found.recall, [1, 0, 1])
    assert found.mean_recall == pytest.approx(2 / 3)
    assert found.confidence == pytest.approx((0.7 + 0.5 + 0.7 + 0.4) / 4)
    assert found.count == 4


def test_a_class_without_a_picture_has_no_recall() -> None:
    found = compare_with_truth(TABLE[:1], [0])
    assert np.isnan(found.recall[1:]).all()
    assert found.mean_recall == 1.0


def test_calibration_by_hand() -> None:
    # two bins of ten: 0.75 right half of the time, 0.95 always right
    sure = [0.72, 0.78, 0.95, 0.95]
    assert calibration_error(sure, [True, False, True, True], bins=10) == pytest.approx((0.5 + 0.1) / 4)
    assert calibration_error([1.0], [True]) == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_the_calibration_error_is_a_share(answers: list[tuple[float, bool]]) -> None:
    sure, right = zip(*answers, strict=True)
    assert 0 <= calibration_error(sure, right) <= 1 + 1e-9


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"truth: the shape is \(2,\); expected \(4,\)"):
        accuracy(TABLE, [0, 1])
    with pytest.raises(ConfigError, match="expected numbers from 0 to 2"):
        accuracy(TABLE, [0, 1, 2, 3])
    with pytest.raises(ConfigError, match="there is no picture"):
        accuracy(np.empty((0, 3)), [])
    with pytest.raises(ConfigError, match="expected numbers from 0 to 1"):
        calibration_error([1.5], [True])
