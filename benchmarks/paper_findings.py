"""Findings with intervals, and what needs no model to be decided: verdicts, effective robustness, captions that are wrong."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from clipcond.score.statistics import LEVEL, RESAMPLES, Interval, bootstrap_mean

HOLDS, FAILS, OPEN = "holds", "does not hold", "open: the interval reaches zero"
_MIRRORED = {"left": "right", "right": "left", "leftwards": "rightwards", "rightwards": "leftwards"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A row: what, its share or difference with an interval, of how many. chance: what an answer by lot reaches."""

    name: str
    interval: Interval
    count: int
    chance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One claim, its rows, and whether it holds.

    decided_by: the row whose interval decides it, a difference.   note: what else is to be said.
    """

    key: str
    claim: str
    rows: tuple[Measured, ...]
    decided_by: Measured
    verdict: str
    note: str = ""


def share(name: str, right: Sequence[float], clusters: Sequence[Hashable], chance: float | None = None) -> Measured:
    """Return the mean of answers, 1 for right and 0 for wrong, drawn again by cluster: pictures of one emoji go together."""
    values = np.asarray(right, dtype=np.float64)
    return Measured(name=name, interval=bootstrap_mean(values, clusters), count=len(values), chance=chance)


def difference(
    name: str, first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable]
) -> Measured:  # fmt: skip
    """Return the mean of first − second on the same pictures."""
    apart = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return Measured(name=name, interval=bootstrap_mean(apart, clusters), count=len(apart))


def verdict(decided_by: Measured, *, below: bool = False) -> str:
    """Say whether a difference is above zero, or below it where that is the claim, by its whole interval."""
    low, high = decided_by.interval.low, decided_by.interval.high
    if low <= 0 <= high:
        return OPEN
    return HOLDS if (high < 0) == below else FAILS


def not_below(measured: Measured) -> str:
    """Say whether a difference may be zero or more: it fails only where the whole interval lies below."""
    return FAILS if measured.interval.high < 0 else HOLDS


def above_chance(measured: Measured) -> str:
    """Say whether a share lies above what an answer by lot reaches, by its whole interval."""
    assert measured.chance is not None
    return HOLDS if measured.interval.low > measured.chance else FAILS


def at_chance(measured: Measured) -> str:
    """Say whether a model is no better than chance at something: the interval reaches down to it."""
    assert measured.chance is not None
    return HOLDS if measured.interval.low <= measured.chance else FAILS


# ── effective robustness (Taori et al. 2020) ─────────────────────────────────────────────────────────────────────────


def logit(shares: Sequence[float] | np.ndarray, count: int) -> np.ndarray:
    """log(p / (1 − p)), p kept half a picture of `count` away from 0 and 1."""
    p = np.clip(np.asarray(shares, dtype=np.float64), 0.5 / count, 1 - 0.5 / count)
    return np.log(p / (1 - p))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The accuracy under a shift that goes with one without: logit(shift) = slope · logit(plain) + offset."""

    slope: float
    offset: float
    count: int

    def __call__(self, plain: float | np.ndarray) -> np.ndarray:
        """Return the accuracy under the shift that is expected of these accuracies without."""
        expected: np.ndarray = 1 / (1 + np.exp(-(self.slope * logit(plain, self.count) + self.offset)))
        return expected


def fit_line(plain: Sequence[float], shifted: Sequence[float], count: int) -> Line:
    """Fit the line of a family of models by least squares between logits. plain, shifted: accuracies of each, two or more."""
    slope, offset = np.polyfit(logit(plain, count), logit(shifted, count), 1)
    return Line(slope=float(slope), offset=float(offset), count=count)


def effective_robustness(
    name: str, plain: Sequence[float], shifted: Sequence[float], line: Line,
    plain_clusters: Sequence[Hashable], shifted_clusters: Sequence[Hashable], *, seed: int = 0,
) -> Measured:  # fmt: skip
    """Return by how much a model is better under a shift than the line expects of its accuracy without.

    plain, shifted: its answers, 1 for right, each with its clusters. Both tests are drawn again, the line stays.
    """
    draws = [
        _resampled(of, clusters, np.random.default_rng([seed, number]))
        for number, (of, clusters) in enumerate(((plain, plain_clusters), (shifted, shifted_clusters)))
    ]
    apart = draws[1] - line(draws[0])
    low, high = np.quantile(apart, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = float(np.mean(shifted) - line(float(np.mean(plain))))
    interval = Interval(value=value, low=min(float(low), value), high=max(float(high), value), level=LEVEL)
    return Measured(name=name, interval=interval, count=len(shifted))


def _resampled(values: Sequence[float], clusters: Sequence[Hashable], draw: np.random.Generator) -> np.ndarray:
    """Means of samples of clusters drawn with replacement: (R,)."""
    _, owner = np.unique(np.asarray(clusters), return_inverse=True)
    sums, sizes = np.bincount(owner, np.asarray(values, dtype=np.float64)), np.bincount(owner)
    rows = draw.integers(0, len(sums), (RESAMPLES, len(sums)))
    means: np.ndarray = sums[rows].sum(axis=1) / sizes[rows].sum(axis=1)
    return means


# ── captions that are nearly right (as SugarCrepe has them: every one a sentence that could be true elsewhere) ───────


def sides(left: str, right: str) -> tuple[str, str]:
    """Return what is true of two things side by side, and the same words the other way round."""
    said = "{} on the left and {} on the right"
    return said.format(left, right), said.format(right, left)


def attributes(first: tuple[str, str], second: tuple[str, str]) -> tuple[str, str]:
    """Return two things with their own colours, and with each other's. first, second: colour and thing."""
    said = "{} {} and {} {}"
    return said.format(*first, *second), said.format(second[0], first[1], first[0], second[1])


def without(shown: str, absent: str) -> list[tuple[str, str]]:
    """Return pairs of what is true of one thing without another, and the same words the other way round.

    The thing that is there is named first in one pair and last in the other, so that the place of a word decides nothing.
    """
    forms = ("{} without {}", "no {1} but {0}")
    return [(form.format(shown, absent), form.format(absent, shown)) for form in forms]


def mirrored(label: str) -> str | None:
    """Return a label with left and right exchanged; None where it names neither or both."""
    found = {word for word in _words(label) if word in _MIRRORED}
    if len(found) != 1:
        return None
    word = found.pop()
    return re.sub(rf"\b{word}\b", _MIRRORED[word], label)


def one_word_apart(labels: Iterable[str]) -> dict[str, list[str]]:
    """Return for each label those of the same number of words that differ in one, in the order of the labels."""
    gaps: dict[tuple[str, ...], list[str]] = {}
    for label in labels:
        for key in _gaps(label):
            gaps.setdefault(key, []).append(label)
    found: dict[str, dict[str, None]] = {}
    for alike in gaps.values():
        for label in alike:
            found.setdefault(label, {}).update(dict.fromkeys(other for other in alike if other != label))
    return {label: list(others) for label, others in found.items() if others}


def one_word_more(labels: Iterable[str]) -> dict[str, list[str]]:
    """Return for each label those that are it with one word put in somewhere."""
    by_words = {tuple(_words(label)): label for label in labels}
    found: dict[str, list[str]] = {}
    for words, longer in by_words.items():
        for place in range(len(words)):
            shorter = by_words.get(words[:place] + words[place + 1 :])
            if shorter is not None and longer not in found.setdefault(shorter, []):
                found[shorter].append(longer)
    return {label: longer for label, longer in found.items() if longer}


def _words(text: str) -> list[str]:
    return re.findall(r"[\w’'-]+", text.lower())


def _gaps(label: str) -> list[tuple[str, ...]]:
    words = _words(label)
    return [(*words[:place], "…", *words[place + 1 :]) for place in range(len(words))] if len(words) > 1 else []


def people_of(labels: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return neutral labels with those of a man and of a woman: `firefighter`, or `person running`."""
    known, found = set(labels), []
    for neutral in labels:
        bare = neutral.startswith("person ")
        man, woman = (
            f"{who} {neutral.removeprefix('person ')}" if bare else f"{who} {neutral}" for who in ("man", "woman")
        )
        if man in known and woman in known:
            found.append((neutral, man, woman))
    return found
