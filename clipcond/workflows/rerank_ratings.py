"""A ranking against people's ratings: how far each score agrees with them, and a head fitted on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import DataError, OptionsError
from clipcond.files import check_output
from clipcond.workflows.events import Events, Note, ignore, task

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clipcond.rerank.ratings import Ratings
    from clipcond.rerank.rows import Ranking
    from clipcond.score.agreement import Agreement
    from clipcond.score.fit import LinearFit
    from clipcond.score.statistics import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingOptions:
    """Tables of ratings. agreement: to compare scores with.   fit: to fit a head on, written to `head`.

    Raises OptionsError for a fit without a place, or a place without a fit.
    """

    agreement: Path | None = None
    fit: Path | None = None
    head: Path | None = None

    def __post_init__(self) -> None:
        if (self.fit is None) != (self.head is None):
            raise OptionsError("--fit RATINGS and --fit-to HEAD.safetensors go together")
        if self.head is not None and self.head.suffix != ".safetensors":
            raise OptionsError(f"{self.head} would hold safetensors; give it a name that ends in .safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRatings:
    """The ratings of both tables, read."""

    agreement: Ratings | None
    fit: Ratings | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingReport:
    """Agreement of each column. alpha: of the people with one another.   rated: rows.   fit: of the head, where there is one."""

    agreements: dict[str, Agreement]
    alpha: float | None
    rated: int
    fit: LinearFit | None
    head: Path | None

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return {
            "rated": self.rated,
            "krippendorff_alpha": self.alpha,
            "agreement": {name: _agreement_json(each) for name, each in self.agreements.items()},
            "fit": None if self.fit is None else _fit_json(self.fit, self.head),
        }


def read_given(options: RatingOptions) -> GivenRatings:
    """Read the tables, before any model is loaded. Raises DataError and OutputExists."""
    if options.agreement is None and options.fit is None:
        return GivenRatings(agreement=None, fit=None)
    from clipcond.rerank.ratings import read_ratings
    from clipcond.score.fit import FOLDS

    if options.head is not None:
        check_output(options.head)
    given = GivenRatings(
        agreement=None if options.agreement is None else read_ratings(options.agreement),
        fit=None if options.fit is None else read_ratings(options.fit),
    )
    for table in filter(None, (given.agreement, given.fit)):
        values = {row.value for row in table.rows}
        if len(values) == 1:
            raise DataError(f"every rating of {table.source} is {values.pop():g}; rate some better and some worse")
    if given.fit is not None and (count := len({row.image for row in given.fit.rows})) < FOLDS:
        raise DataError(f"{given.fit.source} rates {count} pictures; a fit needs {2 * FOLDS} or more")
    return given


def check_rated(given: GivenRatings, paths: Iterable[Path]) -> None:
    """Raise DataError for a table that rates none of the pictures, before any of them is read."""
    tables = list(filter(None, (given.agreement, given.fit)))
    if not tables:
        return
    from clipcond.rerank.picture_names import PictureNames

    names = PictureNames(paths)
    for table in tables:
        if not any(names.find(row.image, table.source) for row in table.rows):
            raise DataError(f"{table.source} rates none of the pictures; name them as they are on the disk")


def compare(
    ranking: Ranking, given: GivenRatings, options: RatingOptions, events: Events = ignore
) -> RatingReport | None:
    """Compare and fit; None where neither is asked for. Raises DataError and ConfigError for ratings that say nothing."""
    if given.agreement is None and given.fit is None:
        return None
    from clipcond.rerank.ratings import agreements, fit_ratings, rated_rows

    agreed, alpha, count, fit = {}, None, 0, None
    if given.agreement is not None:
        rated = rated_rows(ranking, given.agreement)
        _note_unknown(rated.unknown, given.agreement, events)
        agreed, alpha, count = agreements(rated), rated.alpha, len(rated.rows)
    if given.fit is not None and options.head is not None:
        rated = rated_rows(ranking, given.fit)
        _note_unknown(rated.unknown, given.fit, events)
        count = count or len(rated.rows)
        with task(events, "fitting"):
            fit = fit_ratings(ranking, rated)
            _write(fit, options.head, ranking.model)
    return RatingReport(agreements=agreed, alpha=alpha, rated=count, fit=fit, head=options.head)


def _note_unknown(unknown: int, ratings: Ratings, events: Events) -> None:
    if unknown:
        events(Note(f"{unknown} ratings of {ratings.source} are of pictures that were not scored"))


def _write(fit: LinearFit, path: Path, model: str) -> None:
    from clipcond.models.aesthetic_head import write_head_file

    head = fit.head(path.name, model)
    write_head_file(path, head.tensors(), head.described())


def _interval(each: Interval) -> dict[str, float]:
    return {"value": each.value, "low": each.low, "high": each.high, "level": each.level}


def _agreement_json(each: Agreement) -> dict[str, object]:
    return {
        "pair_accuracy": _interval(each.pair_accuracy),
        "preference_accuracy": _interval(each.preference_accuracy),
        "spearman": _interval(each.spearman),
        "kendall": _interval(each.kendall),
        "recall_at": {str(k): _interval(value) for k, value in each.recall_at.items()},
        "filter_at": {str(k): _interval(value) for k, value in each.filter_at.items()},
        "prompts": each.prompts,
        "pairs": each.pairs,
    }


def _fit_json(fit: LinearFit, head: Path | None) -> dict[str, object]:
    return {
        "head": str(head),
        "method": fit.method,
        "accuracy": _interval(fit.accuracy),
        "folds": fit.folds,
        "held_out": fit.held_out,
        "rows": fit.rows,
        "pairs": fit.pairs,
        "penalty": fit.penalty,
    }
