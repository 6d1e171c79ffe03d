"""A prompt's phrases scored one by one: which of them a picture does not show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipcond.errors import ConfigError
from clipcond.score.checks import not_negative, vector

if TYPE_CHECKING:
    from clipcond.score.checks import Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseScores:
    """One picture's phrases. weakest: the number of the one that falls furthest below the others.

    shortfalls: for each phrase, the median of the others − its own, below 0 where it is the stronger.   missing: the
    numbers of those that fall short by the margin or more, the weakest first.
    """

    weakest: int
    shortfalls: tuple[float, ...]
    missing: tuple[int, ...]


def phrase_scores(cosines: Numbers, *, margin: float) -> PhraseScores:
    """Compare each phrase of a prompt with the others.

    cosines: (K,) of one picture with each phrase.   margin: how far below the median of the others a phrase counts as
    missing; a phrase alone is never missing.   Of equals the first is the weakest. Raises ConfigError where there is no
    phrase.
    """
    scores = vector("cosines", cosines)
    if not len(scores):
        raise ConfigError("cosines: there is no phrase; expected one or more")
    least = not_negative("margin", margin)
    if len(scores) == 1:
        return PhraseScores(weakest=0, shortfalls=(0.0,), missing=())
    shortfalls = np.array([np.median(np.delete(scores, number)) - own for number, own in enumerate(scores)])
    by_shortfall = np.argsort(-shortfalls, kind="stable")
    missing = [int(number) for number in by_shortfall if shortfalls[number] >= least and shortfalls[number] > 0]
    return PhraseScores(weakest=int(by_shortfall[0]), shortfalls=tuple(shortfalls.tolist()), missing=tuple(missing))
