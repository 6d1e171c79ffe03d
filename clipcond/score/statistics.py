"""How sure a number is: bootstrap intervals, and two generators compared on the same prompts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from clipcond.errors import ConfigError
from clipcond.score.checks import at_least_one, groups_of, not_negative, vector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

RESAMPLES = 2000
LEVEL = 0.95
_EXACT_UP_TO = 16  # prompts whose sign flips are all tried: 65,536
_FLIPS = 20_000  # of more prompts
_NUMBERS_AT_ONCE = 2**22


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with the ends of its interval, and the share of samples that such an interval is meant to cover."""

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """A first generator against a second, prompt by prompt.

    difference: mean of first − second.   p_value: two-sided, that signs as uneven arise by chance.   exact: True where
    every flip of signs was tried.   win_rate: (wins + ties/2) / prompts, from 0 to 1.
    """

    difference: Interval
    p_value: float
    exact: bool
    wins: int
    ties: int
    losses: int
    win_rate: float


def bootstrap_mean(
    values: Numbers,
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean and its percentile bootstrap interval. (Efron 1979.)

    values: (N,).   clusters: N keys of what is drawn together, such as prompts, whose pictures are not independent; None
    draws rows.   The same for any order of the rows. Raises ConfigError where there is no value.
    """
    column = vector("values", values)
    if clusters is None:
        return bootstrap_ratio(column, np.ones(len(column)), level=level, resamples=resamples, seed=seed)
    groups = groups_of(clusters, len(column), "clusters")
    sums = [float(np.sort(column[rows]).sum()) for rows in groups]
    return bootstrap_ratio(sums, [len(rows) for rows in groups], level=level, resamples=resamples, seed=seed)


def bootstrap_ratio(
    sums: Numbers, counts: Numbers, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Σ sums / Σ counts and its interval, each sum drawn with its count: a mean over clusters that differ in size.

    sums, counts: (C,) of each cluster, counts above 0.   Else as `bootstrap_mean`.
    """
    totals = vector("sums", sums)
    sizes = vector("counts", counts, len(totals))
    if not len(totals):
        raise ConfigError("there is no value; a mean needs one or more")
    if not (sizes > 0).all():
        raise ConfigError(f"counts: cluster {int(sizes.argmin()) + 1} has {sizes.min():g}; expected more than 0")
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; expected more than 0 and less than 1")
    order = np.lexsort((sizes, totals))
    totals, sizes = totals[order], sizes[order]
    drawn = _resampled(totals, sizes, at_least_one("resamples", resamples), seed)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    value = float(totals.sum() / sizes.sum())
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value), level=level)


def paired_comparison(first: Numbers, second: Numbers, *, noise: float = 0.0, seed: int = 0) -> PairedComparison:
    """Compare two generators on the same prompts by sign flips of the differences. (Fisher 1935.)

    first, second: (N,) one score for each prompt, the mean of its pictures where it has several.   noise: differences
    up to it are ties in the win rate.   Raises ConfigError where there is no prompt.
    """
    one = vector("first", first)
    differences = np.sort(one - vector("second", second, len(one)))
    if not len(one):
        raise ConfigError("first: there is no prompt to compare on; expected one or more")
    width = not_negative("noise", noise)
    wins, losses = int((differences > width).sum()), int((differences < -width).sum())
    ties = len(one) - wins - losses
    return PairedComparison(
        difference=bootstrap_mean(differences, seed=seed),
        p_value=_sign_flip_p(differences, seed),
        exact=len(one) <= _EXACT_UP_TO,
        wins=wins,
        ties=ties,
        losses=losses,
        win_rate=(wins + ties / 2) / len(one),
    )


def _resampled(
    sums: NDArray[np.float64], counts: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Means of samples drawn with replacement: (R,)."""
    draw = np.random.default_rng(seed)
    means = []
    left = resamples
    while left:
        now = min(left, max(1, _NUMBERS_AT_ONCE // len(sums)))
        rows = draw.integers(0, len(sums), (now, len(sums)))
        means.append(sums[rows].sum(axis=1) / counts[rows].sum(axis=1))
        left -= now
    return np.concatenate(means)


def _sign_flip_p(differences: NDArray[np.float64], seed: int) -> float:
    """Share of sign patterns whose sum is as far from 0 as the one at hand, itself counted."""
    sizes = np.sort(np.abs(differences))
    largest = sizes[-1]
    if largest == 0:
        return 1.0
    sizes = sizes / largest
    least = abs(float((differences / largest).sum())) - 1e-9 * len(sizes)  # equal sums may be rounded otherwise
    if len(sizes) <= _EXACT_UP_TO:
        sums = np.array(list(product((-1.0, 1.0), repeat=len(sizes)))) @ sizes
        return float((np.abs(sums) >= least).mean())
    draw = np.random.default_rng(seed)
    extreme, left = 0, _FLIPS
    while left:
        now = min(left, max(1, _NUMBERS_AT_ONCE // len(sizes)))
        sums = (draw.integers(0, 2, (now, len(sizes)), dtype=np.int8) * 2.0 - 1.0) @ sizes
        extreme += int((np.abs(sums) >= least).sum())
        left -= now
    return (extreme + 1) / (_FLIPS + 1)
