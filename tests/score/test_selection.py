"""Maximal marginal relevance."""

from __future__ import annotations

import numpy as np
import pytest

from clipcond.score.selection import mmr, stretched

UNITS = np.array([[1, 0], [0.98, (1 - 0.98**2) ** 0.5], [0.6, 0.8], [0, 1]])


@pytest.mark.parametrize(
    ("keep", "order", "values"),
    [
        (1.0, [0, 1, 2, 3], [1.0, 0.9, 0.7, 0.0]),
        (0.9, [0, 1, 2, 3], [0.9, 0.712, 0.5553, -0.08]),
        (0.7, [0, 1, 2, 3], [0.7, 0.336, 0.2658, -0.24]),
        (0.5, [0, 2, 1, 3], [0.5, 0.05, -0.04, -0.4]),
    ],
)
def test_mmr_matches_published_vectors(keep: float, order: list[int], values: list[float]) -> None:
    relevance = stretched([0.30, 0.29, 0.27, 0.20], ["a"] * 4)
    assert np.allclose(relevance, [1, 0.9, 0.7, 0])
    picks = mmr(relevance, UNITS, 1 - keep)
    assert picks == order
    similar = UNITS @ UNITS.T
    for place, pick in enumerate(picks):
        nearest = max((similar[pick, other] for other in picks[:place]), default=0.0)
        assert keep * relevance[pick] - (1 - keep) * nearest == pytest.approx(values[place], abs=5e-5)
    assert mmr(relevance, UNITS, 1 - keep, top=2) == order[:2]


def test_scores_are_stretched_within_their_prompt() -> None:
    assert stretched([0.3, 0.1, 0.2, 0.5], ["a", "a", "a", "b"]).tolist() == pytest.approx([1, 0, 0.5, 1])
