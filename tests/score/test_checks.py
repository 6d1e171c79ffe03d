"""Numbers and vectors from outside: what is taken, what is refused by its place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipcond.errors import ConfigError, ShapeError
from clipcond.score.checks import finite, groups_of, matrix, unit_rows, vector


def test_tensors_of_any_float_dtype_are_taken() -> None:
    assert vector("x", torch.tensor([0.5, -1.0], dtype=torch.bfloat16)).tolist() == [0.5, -1.0]
    assert vector("x", torch.ones(2, requires_grad=True)).dtype == np.float64


def test_unit_rows_keep_their_direction_at_any_size() -> None:
    rows = unit_rows("rows", [[3e-200, 4e-200], [3e200, 4e200]])
    assert rows == pytest.approx(np.array([[0.6, 0.8]] * 2), abs=1e-15)
    with pytest.raises(ConfigError, match="rows: row 2 is all zeros; a vector needs a direction"):
        unit_rows("rows", [[1, 0], [0, 0]])


def test_axes_and_numbers_are_checked_by_name() -> None:
    with pytest.raises(ShapeError, match=r"x: the shape is \(2, 1\); expected \(N,\)"):
        vector("x", [[1], [2]])
    with pytest.raises(ShapeError, match=r"x: the shape is \(1, 2\); expected \(N, 3\)"):
        matrix("x", [[1, 2]], 3)
    with pytest.raises(ConfigError, match=r"x: number 3 of 4 is -inf; expected finite numbers"):
        finite("x", [[1, 2], [-np.inf, 3]])
    with pytest.raises(ConfigError, match="x: not an array of numbers"):
        finite("x", [[1, 2], [3]])


def test_groups_are_in_the_order_of_their_first_rows() -> None:
    assert [group.tolist() for group in groups_of(["b", None, "b", "a"], 4)] == [[0, 2], [1], [3]]
    with pytest.raises(ShapeError, match="prompts: there are 1; expected 2, one for each row"):
        groups_of("a", 2)
