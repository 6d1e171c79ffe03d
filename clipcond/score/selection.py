"""Selection among scored vectors: maximal marginal relevance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clipcond.score.checks import groups_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


def stretched(scores: Sequence[float], prompts: Sequence[str | None]) -> NDArray[np.float64]:
    """Scores from 0 (the least of its prompt) to 1 (the best of its prompt); 1 where they are all the same."""
    values = np.asarray(scores, dtype=np.float64)
    result = np.ones_like(values)
    for rows in groups_of(prompts, len(values)):
        least, most = values[rows].min(), values[rows].max()
        if most > least:
            result[rows] = (values[rows] - least) / (most - least)
    return result


def mmr(
    relevance: NDArray[np.float64], vectors: NDArray[np.float64], diversity: float, top: int | None = None
) -> list[int]:
    """Maximal marginal relevance: repeatedly the argmax of (1 - d)·relevance - d·(largest cosine to one chosen).

    relevance: (N,) from 0 to 1. vectors: (N, P) unit rows. Returns the indices of the first `top` picks, all where
    None; the first pick is the most relevant, and of equals the first is taken.
    """
    count = len(relevance) if top is None else min(top, len(relevance))
    nearest = np.zeros(len(relevance))
    value = np.asarray(relevance, dtype=np.float64) * (1 - diversity)
    left = np.ones(len(relevance), dtype=bool)
    picks: list[int] = []
    while len(picks) < count:
        merit = np.where(left, value - diversity * nearest, -np.inf) if picks else np.asarray(relevance, dtype=float)
        pick = int(merit.argmax())
        similar = vectors @ vectors[pick]
        nearest = similar if not picks else np.maximum(nearest, similar)
        left[pick] = False
        picks.append(pick)
    return picks
