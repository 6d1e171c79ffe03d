"""Agreement of a score with people's choices and ratings, prompt by prompt.

Each measure gives one number for a pair or a prompt; `bootstrap_mean` with prompts as clusters turns them into a share
with its interval.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipcond.errors import ConfigError
from clipcond.score.checks import at_least_one, groups_of, positive, vector
from clipcond.score.correlation import concordance, kendall, spearman
from clipcond.score.statistics import Interval, bootstrap_mean, bootstrap_ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

KS = (1, 2, 4)
_THRESHOLDS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A score's agreement with ratings, each number with a bootstrap interval over prompts.

    pair_accuracy: share of the pairs within a prompt that both order alike, a tie of either side half.
    preference_accuracy: the same of the pairs alone that people rate differently, so that a perfect score reaches 1 on
    keeps and deletes too. Chance is 0.5 on both.   spearman, kendall: mean over prompts, from -1 to 1.
    recall_at, filter_at: by k, the share of prompts whose best picture is among the k scored highest, whose worst is among
    the k lowest.   prompts: how many have two ratings that differ; the others say nothing.   pairs: within those.
    """

    pair_accuracy: Interval
    preference_accuracy: Interval
    spearman: Interval
    kendall: Interval
    recall_at: dict[int, Interval]
    filter_at: dict[int, Interval]
    prompts: int
    pairs: int


def agreement(scores: Numbers, ratings: Numbers, prompts: Sequence[Hashable], *, seed: int = 0) -> Agreement:
    """Compare scores with ratings of the same pictures.

    scores, ratings: (N,), higher is better on both.   prompts: N keys.   Raises ConfigError where no prompt has two
    ratings that differ.
    """
    values = vector("scores", scores)
    rated = vector("ratings", ratings, len(values))
    groups = [rows for rows in groups_of(prompts, len(values)) if np.ptp(rated[rows]) > 0]
    if not groups:
        raise ConfigError("no prompt has two pictures that are rated differently; rate some better and some worse")
    counts = [concordance(values[rows], rated[rows]) for rows in groups]
    rows = np.concatenate(groups)
    keys = np.repeat(np.arange(len(groups)), [len(group) for group in groups]).tolist()
    return Agreement(
        pair_accuracy=bootstrap_ratio(
            [each.pairs / 2 + (each.concordant - each.discordant) / 2 for each in counts],
            [each.pairs for each in counts],
            seed=seed,
        ),
        preference_accuracy=bootstrap_ratio(
            [each.credit for each in counts], [each.decided for each in counts], seed=seed
        ),
        spearman=bootstrap_mean([spearman(values[group], rated[group]) for group in groups], seed=seed),
        kendall=bootstrap_mean([kendall(values[group], rated[group]) for group in groups], seed=seed),
        recall_at={k: bootstrap_mean(recall_at_k(values[rows], rated[rows], keys, k), seed=seed) for k in KS},
        filter_at={k: bootstrap_mean(filter_at_k(values[rows], rated[rows], keys, k), seed=seed) for k in KS},
        prompts=len(groups),
        pairs=sum(each.pairs for each in counts),
    )


def pair_credit(score_gaps: Numbers, preferences: Numbers) -> NDArray[np.float64]:
    """1 where score and person prefer the same of two pictures, 0 where they differ, 0.5 where either sees a tie.

    score_gaps: (K,) score of the first − of the second.   preferences: (K,) above 0 where the person prefers the first,
    below 0 the second, 0 neither.   Returns (K,); a constant score earns 0.5 of every pair.
    """
    gaps = vector("score_gaps", score_gaps)
    return (1 + np.sign(gaps) * np.sign(vector("preferences", preferences, len(gaps)))) / 2


def threshold_credit(
    score_gaps: Numbers, preferences: Numbers, *, threshold: float, logit_scale: float = 1.0
) -> NDArray[np.float64]:
    """PickScore's rule: the score sees a tie where its two probabilities differ by `threshold` or less.

    Probabilities are the softmax of logit_scale · score over the pair. Credit is 1 for the person's own answer (first,
    second or tie), 0.5 where one of the two alone sees a tie, 0 for the other picture. (Kirstain et al. 2023.)
    score_gaps, preferences: (K,) as for `pair_credit`.   Returns (K,).
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold is {threshold}; expected a difference of probabilities from 0 to 1")
    gaps = vector("score_gaps", score_gaps)
    said = np.sign(vector("preferences", preferences, len(gaps)))
    apart = np.tanh(positive("logit_scale", logit_scale) * gaps / 2)  # p(first) − p(second)
    predicted = np.where(np.abs(apart) <= threshold, 0.0, np.sign(apart))
    credit: NDArray[np.float64] = 1 - np.abs(predicted - said) / 2
    return credit


def best_threshold(score_gaps: Numbers, preferences: Numbers, *, logit_scale: float = 1.0) -> float:
    """The tie threshold of 0, 0.01, … 1 with the highest mean credit, the least of equals.

    To be tuned on other pairs than those whose accuracy is reported. score_gaps, preferences: (K,), K 1 or more.
    """
    if not len(vector("score_gaps", score_gaps)):
        raise ConfigError("score_gaps: there is none; a threshold is tuned on one pair or more")
    means = [
        threshold_credit(score_gaps, preferences, threshold=each, logit_scale=logit_scale).mean()
        for each in _THRESHOLDS
    ]
    return float(_THRESHOLDS[int(np.argmax(means))])


def recall_at_k(scores: Numbers, ratings: Numbers, prompts: Sequence[Hashable], k: int) -> NDArray[np.float64]:
    """For each prompt, the chance that its best-rated picture is among the k scored highest. (ImageReward, Xu et al. 2023.)

    Pictures of equal score share their places, so a constant score finds k of n. Of several that are rated best, the one
    scored highest counts.   scores, ratings: (N,).   prompts: N keys.   Returns one number for each prompt, in the order of
    their first rows.
    """
    values = vector("scores", scores)
    rated = vector("ratings", ratings, len(values))
    at_least_one("k", k)
    return np.array([_found(values[rows], rated[rows], k) for rows in groups_of(prompts, len(values))])


def filter_at_k(scores: Numbers, ratings: Numbers, prompts: Sequence[Hashable], k: int) -> NDArray[np.float64]:
    """For each prompt, the chance that its worst-rated picture is among the k scored lowest; else as `recall_at_k`."""
    return recall_at_k(-vector("scores", scores), -vector("ratings", ratings), prompts, k)


def _found(scores: NDArray[np.float64], ratings: NDArray[np.float64], k: int) -> float:
    best = scores[ratings == ratings.max()].max()
    above, equal = int((scores > best).sum()), int((scores == best).sum())
    return min(1.0, max(0.0, (k - above) / equal))
