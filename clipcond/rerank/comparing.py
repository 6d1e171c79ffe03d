"""Two generators on the same prompts: pictures paired by prompt and seed or name, and each score compared.

Pictures of one prompt are not independent, so that with several prompts a prompt counts once, by the mean of its pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clipcond.errors import DataError
from clipcond.score.statistics import PairedComparison, paired_comparison

PairedBy = Literal["seed", "name", "prompt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPicture:
    """A picture of a generator. name: of its file.   scores: numbers by column."""

    prompt: str
    name: str
    seed: str
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnComparison:
    """A column of both sides: their means over what is compared, and the difference first − second."""

    first: float
    second: float
    paired: PairedComparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Columns compared. unit: what counts once, a prompt or a pair of pictures.

    paired_by: how many prompts had pictures of one seed, of one name, or neither, so that all of each side are taken.
    pictures: of the first and of the second that are compared.   only_first, only_second: prompts that one side alone has.
    """

    unit: Literal["prompt", "pair"]
    columns: Mapping[str, ColumnComparison]
    prompts: int
    pictures: tuple[int, int]
    paired_by: Mapping[PairedBy, int]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Match:
    """Pictures of a prompt, in pairs of one place unless they are paired by prompt alone."""

    first: Sequence[ScoredPicture]
    second: Sequence[ScoredPicture]
    by: PairedBy


def compare_pictures(
    first: Sequence[ScoredPicture], second: Sequence[ScoredPicture], noise: Mapping[str, float]
) -> Comparison:
    """Compare two generators by every column that both have.

    noise: of columns; a prompt whose means differ by no more is a tie.   Raises DataError without a prompt or a column in both.
    """
    one, other = _by_prompt(first), _by_prompt(second)
    common = sorted(one.keys() & other.keys())
    if not common:
        raise DataError(
            f"no prompt has pictures on both sides (the first has {len(one):,} prompts, the second {len(other):,}); "
            "pictures are compared prompt by prompt"
        )
    names = [name for name in first[0].scores if all(name in each.scores for each in (*first, *second))]
    if not names:
        raise DataError("the two sides have no column of numbers in common")
    matches = [_match(one[prompt], other[prompt]) for prompt in common]
    alone = matches[0] if len(matches) == 1 and matches[0].by != "prompt" and len(matches[0].first) > 1 else None
    columns = {}
    for name in names:
        left, right = _values(alone, matches, name)
        columns[name] = ColumnComparison(
            first=float(left.mean()),
            second=float(right.mean()),
            paired=paired_comparison(left, right, noise=noise.get(name, 0.0)),
        )
    return Comparison(
        unit="prompt" if alone is None else "pair",
        columns=columns,
        prompts=len(common),
        pictures=(sum(len(each.first) for each in matches), sum(len(each.second) for each in matches)),
        paired_by=Counter(each.by for each in matches),
        only_first=tuple(sorted(one.keys() - other.keys())),
        only_second=tuple(sorted(other.keys() - one.keys())),
    )


def _by_prompt(pictures: Iterable[ScoredPicture]) -> dict[str, list[ScoredPicture]]:
    found: dict[str, list[ScoredPicture]] = {}
    for picture in pictures:
        found.setdefault(" ".join(picture.prompt.split()), []).append(picture)
    return found


def _match(first: Sequence[ScoredPicture], second: Sequence[ScoredPicture]) -> _Match:
    """Pair the pictures of a prompt by their seeds, else by their names; where neither fits, take all of each side."""
    keys: tuple[PairedBy, PairedBy] = ("seed", "name")
    for key in keys:
        one, other = (_unique(key, side) for side in (first, second))
        both = sorted(one.keys() & other.keys())
        if both:
            return _Match(first=[one[each] for each in both], second=[other[each] for each in both], by=key)
    return _Match(first=first, second=second, by="prompt")


def _unique(key: PairedBy, pictures: Sequence[ScoredPicture]) -> dict[str, ScoredPicture]:
    """Pictures by a key that no other of them has."""
    values = [getattr(picture, key) for picture in pictures]
    counts = Counter(values)
    return {value: picture for value, picture in zip(values, pictures, strict=True) if value and counts[value] == 1}


def _values(alone: _Match | None, matches: Sequence[_Match], name: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers that a column is compared by: the pairs of the only prompt, or the mean of each prompt."""
    if alone is not None:
        sides = ([[each.scores[name]] for each in alone.first], [[each.scores[name]] for each in alone.second])
    else:
        sides = (
            [[each.scores[name] for each in match.first] for match in matches],
            [[each.scores[name] for each in match.second] for match in matches],
        )
    left, right = (np.array([np.mean(values) for values in side]) for side in sides)
    return left, right
