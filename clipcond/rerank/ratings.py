"""People's ratings of pictures: read from a table, compared with the scores of a ranking, and fitted by a head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipcond.errors import ConfigError, DataError
from clipcond.rerank.picture_names import PictureNames
from clipcond.rerank.rows import RankedImage, Ranking
from clipcond.rerank.tables import IMAGE_COLUMNS, PROMPT_COLUMNS, column_of, maybe_column_of, read_table
from clipcond.score.agreement import Agreement, agreement
from clipcond.score.fit import LinearFit, fit_bradley_terry, fit_ridge, preference_pairs
from clipcond.score.reliability import krippendorff_alpha
from clipcond.wording import visible

RATING_COLUMNS = ("rating", "score", "stars", "keep", "kept", "label")
_WORDS = {"keep": 1.0, "kept": 1.0, "yes": 1.0, "true": 1.0, "delete": 0.0, "discard": 0.0, "no": 0.0, "false": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """One person's rating of a picture, higher is better. prompt: where the table names one."""

    image: str
    value: float
    prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratings:
    """The ratings of a table."""

    source: Path
    rows: tuple[Rating, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedRows:
    """Rows of a ranking that people rated, with the mean of their ratings; how many ratings were of no row.

    alpha: Krippendorff's, where pictures were rated more than once; None where it is not defined.
    """

    rows: tuple[RankedImage, ...]
    ratings: tuple[float, ...]
    unknown: int
    alpha: float | None


def read_ratings(path: Path) -> Ratings:
    """Read a table with a picture and a rating in each row: a number, or keep and delete. Raises DataError, naming the row."""
    table = read_table(path)
    image = column_of(path, table, IMAGE_COLUMNS, "picture")
    rating = column_of(path, table, RATING_COLUMNS, "rating")
    prompt = maybe_column_of(table, PROMPT_COLUMNS)
    rows = []
    for number, row in enumerate(table, 1):
        value = _value(row.get(rating, ""))
        if value is None or not row.get(image):
            given = f"{rating} is {visible(row.get(rating, ''))!r}" if row.get(image) else f"{image} is empty"
            raise DataError(f"{path}, row {number}: {given}; expected a picture and a number, or keep and delete")
        rows.append(Rating(image=row[image], value=value, prompt=row.get(prompt) if prompt else None))
    return Ratings(source=path, rows=tuple(rows))


def _value(text: str) -> float | None:
    if text.casefold() in _WORDS:
        return _WORDS[text.casefold()]
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def rated_rows(ranking: Ranking, ratings: Ratings) -> RatedRows:
    """Put ratings to the scored rows they belong to. Raises DataError where none does."""
    names = PictureNames(row.path for row in ranking.scored)
    given: dict[tuple[Path, str | None], list[float]] = {}
    unknown = 0
    for each in ratings.rows:
        path = names.find(each.image, ratings.source)
        if path is None:
            unknown += 1
        else:
            given.setdefault((path, each.prompt), []).append(each.value)
    found = [(row, given.get((row.path, row.prompt)) or given.get((row.path, None))) for row in ranking.scored]
    rows = [(row, values) for row, values in found if values]
    if not rows:
        raise DataError(
            f"{ratings.source} rates none of the pictures that were scored; name them as they are on the disk"
        )
    return RatedRows(
        rows=tuple(row for row, _ in rows),
        ratings=tuple(float(np.mean(values)) for _, values in rows),
        unknown=unknown,
        alpha=_alpha(
            [value for _, values in rows for value in values], [n for n, (_, v) in enumerate(rows) for _ in v]
        ),
    )


def _alpha(values: Sequence[float], pictures: Sequence[int]) -> float | None:
    try:
        return krippendorff_alpha(values, pictures, level="ordinal")
    except ConfigError:  # rated once, or all alike
        return None


def agreements(rated: RatedRows) -> dict[str, Agreement]:
    """The agreement of the score that orders, and of every column, with the ratings. Raises ConfigError where none differ."""
    prompts = [row.prompt for row in rated.rows]
    columns = {"score": [row.score or 0.0 for row in rated.rows]}
    for name in rated.rows[0].scores:
        if name not in ("z", "percentile"):
            columns[name] = [row.scores[name] for row in rated.rows]
    return {name: agreement(values, rated.ratings, prompts) for name, values in columns.items()}


def fit_ratings(ranking: Ranking, rated: RatedRows) -> LinearFit:
    """Fit a head on the pictures' vectors: the better of ridge and Bradley-Terry by held-out accuracy.

    Raises ConfigError where ratings are too few or do not differ.
    """
    unique = {row.path: n for n, row in reversed(list(enumerate(rated.rows)))}
    chosen = sorted(unique.values())
    images = np.stack([ranking.vectors[rated.rows[n].path] for n in chosen])
    ratings = [rated.ratings[n] for n in chosen]
    prompts = [rated.rows[n].prompt or "" for n in chosen]
    paths = [str(rated.rows[n].path) for n in chosen]
    ridge = fit_ridge(images, ratings, prompts=prompts, paths=paths)
    pairs = preference_pairs(ratings, prompts)
    if not len(pairs):
        return ridge
    choices = fit_bradley_terry(images, pairs, prompts=prompts, paths=paths)
    return choices if choices.accuracy.value > ridge.accuracy.value else ridge
