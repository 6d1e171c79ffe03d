"""The dial between the tower before and after training: weights (1 - α)θ₀ + αθ₁, after WiSE-FT (arXiv 2109.01903)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ALPHAS = tuple(number / 10 for number in range(11))
SLACK = 0.01  # of recall, given up for less drift


@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaPoint:
    """One place of the dial. recall: on the domain, larger is better.   drift: on general prompts, smaller is better."""

    alpha: float
    recall: float
    drift: float

    def to_json(self) -> dict[str, float]:
        return {"alpha": self.alpha, "recall": self.recall, "drift": self.drift}


def mixed(before: Mapping[str, Tensor], after: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Return (1 - alpha)·before + alpha·after of weights of the same names and shapes; 0 and 1 give either bit for bit.

    Whole numbers, such as counters of batches, are those of `after`.
    """
    if alpha in (0.0, 1.0):
        return dict(after if alpha else before)
    return {
        name: torch.lerp(before[name].to(value), value, alpha) if value.is_floating_point() else value
        for name, value in after.items()
    }


def sweep(
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    measure: Callable[[Mapping[str, Tensor]], tuple[float, float]],
    alphas: Sequence[float] = ALPHAS,
) -> tuple[AlphaPoint, ...]:
    """Measure each place of the dial. measure: weights to (recall, drift)."""
    found = []
    for alpha in alphas:
        recall, drift = measure(mixed(before, after, alpha))
        found.append(AlphaPoint(alpha=alpha, recall=recall, drift=drift))
    return tuple(found)


def choose(points: Sequence[AlphaPoint], slack: float = SLACK) -> AlphaPoint:
    """Return the point of least drift among those whose recall is within `slack` of the best."""
    best = max(point.recall for point in points)
    return min(
        (point for point in points if point.recall >= best - slack), key=lambda point: (point.drift, point.alpha)
    )


def pareto(points: Sequence[AlphaPoint]) -> tuple[AlphaPoint, ...]:
    """Return the points that no other beats in both recall and drift, in the order given."""
    return tuple(point for point in points if not any(_beats(other, point) for other in points))


def _beats(one: AlphaPoint, other: AlphaPoint) -> bool:
    """True if one point is at least as good in both and better in one."""
    better = one.recall > other.recall or one.drift < other.drift
    return better and one.recall >= other.recall and one.drift <= other.drift
