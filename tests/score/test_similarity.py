"""Cosine and CLIPScore of vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipcond.errors import ModelError, ShapeError
from clipcond.score.scales import clipscore
from clipcond.score.similarity import cosines


def test_clip_score_vectors() -> None:
    assert clipscore(np.array([0.30, -0.05])).tolist() == [0.75, 0.0]


def test_a_negative_zero_is_a_zero() -> None:
    assert str(cosines(torch.tensor([[1.0, 0.0]]), np.array([-1e-9, 0.0]))[0]) == "0.0"


def test_vectors_of_another_width_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"vectors are \(2, 5\); expected \(N, 3\) of the same model"):
        cosines(torch.zeros(2, 5), np.zeros(3))


def test_a_nan_has_no_cosine() -> None:
    with pytest.raises(ModelError, match="vectors hold values that are not finite, so they have no cosine"):
        cosines(torch.tensor([[1.0, float("nan")]]), np.array([1.0, 0.0]))
