"""Krippendorff's alpha: how far several people's ratings of the same pictures agree beyond chance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from clipcond.errors import ConfigError
from clipcond.score.checks import groups_of, vector
from clipcond.score.correlation import average_ranks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

Level = Literal["nominal", "ordinal", "interval"]


def krippendorff_alpha(ratings: Numbers, pictures: Sequence[Hashable], *, level: Level) -> float:
    """1 − observed / expected disagreement: 1 for perfect agreement, 0 for chance, below 0 for less. (Krippendorff 2011.)

    ratings: (K,) one for each rating that was given.   pictures: K keys of what was rated; who rated it does not matter,
    and a picture rated once adds nothing.   level: two different ratings disagree alike (nominal), by the ratings between
    them (ordinal) or by the square of their distance (interval).   Raises ConfigError where no picture was rated twice
    or every rating is the same, for which alpha is not defined.
    """
    if level not in get_args(Level):
        raise ConfigError(f"no level {level!r}; expected one of {', '.join(get_args(Level))}")
    values = vector("ratings", ratings)
    groups = [rows for rows in groups_of(pictures, len(values), "pictures") if len(rows) > 1]
    if not groups:
        raise ConfigError("no picture was rated twice; alpha needs two ratings of one picture or more")
    values = values[np.concatenate(groups)]
    units = np.repeat(np.arange(len(groups)), [len(rows) for rows in groups])
    if np.ptp(values) == 0:
        raise ConfigError(f"every rating is {values[0]:g}; alpha is defined only where ratings differ")
    if level == "nominal":
        observed, expected = _disagreeing_pairs(values, units)
    else:
        observed, expected = _squared_distances(average_ranks(values) if level == "ordinal" else values, units)
    return 1.0 - (len(values) - 1) * observed / expected


def _disagreeing_pairs(values: NDArray[np.float64], units: NDArray[np.intp]) -> tuple[float, float]:
    """Ordered pairs of unlike ratings: within each picture over (its ratings − 1), and over all."""
    sizes = np.bincount(units)
    _, codes = np.unique(values, return_inverse=True)
    _, cells = np.unique(np.column_stack([units, codes]), axis=0, return_counts=True)
    of_cell = np.unique(np.column_stack([units, codes]), axis=0)[:, 0]
    alike = np.bincount(of_cell, weights=cells.astype(np.float64) ** 2)
    observed = float(((sizes.astype(np.float64) ** 2 - alike) / (sizes - 1)).sum())
    return observed, float(len(values) ** 2 - (np.bincount(codes).astype(np.float64) ** 2).sum())


def _squared_distances(values: NDArray[np.float64], units: NDArray[np.intp]) -> tuple[float, float]:
    """Squared distances of ordered pairs, likewise: Σ (x − y)² = 2 · n · Σ (x − mean)²."""
    values = (values - values.min()) / np.ptp(values)
    sizes = np.bincount(units).astype(np.float64)
    means = np.bincount(units, weights=values) / sizes
    within = np.bincount(units, weights=np.square(values - means[units]))
    observed = float((2 * sizes * within / (sizes - 1)).sum())
    return observed, float(2 * len(values) * np.square(values - values.mean()).sum())
