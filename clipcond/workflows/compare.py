"""Two generators compared on the same prompts: their pictures scored together, or two tables of scores."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import DataError, OptionsError
from clipcond.wording import visible
from clipcond.workflows.events import Events, Note, ignore
from clipcond.workflows.rerank import DEFAULT_SCORE, RerankOptions, View
from clipcond.workflows.rerank import run as rank

if TYPE_CHECKING:
    from clipcond.rerank.comparing import Comparison, ScoredPicture
    from clipcond.rerank.rows import RankedImage, Ranking

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
_TABLE_NOISE = 1e-6  # of scores that nobody states: what they are rounded to
_DERIVED = ("z", "percentile")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """Two sides, both pictures (a folder, a tar, a pattern) or both tables that `rerank --csv` wrote.

    prompt: None is each picture's own.   score: a column, a sum, or several with commas; of tables by default their
    `score`.   noise: differences up to this are ties; None is what scoring itself may be off by.
    Raises OptionsError for options that contradict one another or are out of range.
    """

    first: str
    second: str
    prompt: str | None = None
    model: str = "mini"
    score: str | None = None
    aesthetic: Path | None = None
    view: View | None = None
    recursive: bool = False
    batch_size: int = 32
    cache: bool = True
    noise: float | None = None

    def __post_init__(self) -> None:
        if self.noise is not None and not 0 <= self.noise < math.inf:
            raise OptionsError(f"--noise is {self.noise:g}; expected a difference of scores from 0 on, such as 0.001")
        if os.path.abspath(self.first) == os.path.abspath(self.second):  # noqa: PTH100
            raise OptionsError(f"{self.first} is named twice; name two folders, or two tables")
        tables = [name for name in (self.first, self.second) if name.endswith(TABLES)]
        if len(tables) == 1:
            raise OptionsError(f"{tables[0]} is a table and the other side is none; name two tables, or pictures twice")
        if self.tables and (self.prompt or self.aesthetic or self.view):
            raise OptionsError("tables hold scores already; leave --prompt, --aesthetic and --view out")
        self.ranking()

    @property
    def tables(self) -> bool:
        """True if both sides are tables."""
        return self.first.endswith(TABLES)

    def ranking(self) -> RerankOptions:
        """The ranking of both sides together, so that numbers that depend on the others are the same for both."""
        return RerankOptions(
            images=(self.first, self.second),
            prompt=self.prompt,
            model=self.model,
            score=self.score or DEFAULT_SCORE,
            aesthetic=self.aesthetic,
            view=self.view,
            recursive=self.recursive,
            batch_size=self.batch_size,
            cache=self.cache,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareReport:
    """A comparison and what its numbers are. line: their scale, empty for tables.   warning: words that the model has
    never seen.   errors: pictures without a score."""

    first: str
    second: str
    comparison: Comparison
    line: str
    warning: str = ""
    errors: tuple[RankedImage, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The report as JSON values; a difference is first − second."""
        found = self.comparison
        return {
            "first": self.first,
            "second": self.second,
            "scale": self.line or None,
            "unit": found.unit,
            "prompts": found.prompts,
            "pictures": list(found.pictures),
            "paired_by": dict(found.paired_by),
            "only_first": list(found.only_first),
            "only_second": list(found.only_second),
            "errors": len(self.errors),
            "warning": self.warning or None,
            "columns": {
                name: {
                    "first": each.first,
                    "second": each.second,
                    "difference": each.paired.difference.value,
                    "low": each.paired.difference.low,
                    "high": each.paired.difference.high,
                    "level": each.paired.difference.level,
                    "p_value": each.paired.p_value,
                    "exact": each.paired.exact,
                    "wins": each.paired.wins,
                    "ties": each.paired.ties,
                    "losses": each.paired.losses,
                    "win_rate": each.paired.win_rate,
                }
                for name, each in found.columns.items()
            },
        }


def run(options: CompareOptions, events: Events = ignore) -> CompareReport:
    """Score both sides in one run, or read both tables, and compare. What one side alone has becomes a note.

    Raises as `rerank` does, DataError where no prompt is on both sides, and OptionsError for a picture on both.
    """
    from clipcond.rerank.comparing import compare_pictures

    if options.tables:
        first, second = (_read(Path(name), options, events) for name in (options.first, options.second))
        noise = dict.fromkeys(first[0].scores, _TABLE_NOISE if options.noise is None else options.noise)
        report = CompareReport(
            first=options.first, second=options.second, line="", comparison=compare_pictures(first, second, noise)
        )
    else:
        report = _scored(options, events)
    for side, other, alone in (
        (options.first, options.second, report.comparison.only_first),
        (options.second, options.first, report.comparison.only_second),
    ):
        if alone:
            many = f"{len(alone):,} prompts have" if len(alone) > 1 else f"the prompt “{visible(alone[0])[:60]}” has"
            events(Note(f"{many} pictures in {side} and none in {other}; left out"))
    return report


def _scored(options: CompareOptions, events: Events) -> CompareReport:
    from clipcond.images.find import find_pictures
    from clipcond.rerank.comparing import compare_pictures

    first, second = (
        {os.path.abspath(path) for path in find_pictures([side], recursive=options.recursive).paths}  # noqa: PTH100
        for side in (options.first, options.second)
    )
    if shared := sorted(first & second):
        more = f" and {len(shared) - 1:,} more are" if len(shared) > 1 else " is"
        raise OptionsError(f"{shared[0]}{more} on both sides; name pictures of two generators")
    ranking = rank(options.ranking(), events)
    sides: tuple[list[ScoredPicture], list[ScoredPicture]] = ([], [])
    for row in ranking.scored:
        sides[os.path.abspath(row.path) in second].append(_picture(row, ranking))  # noqa: PTH100
    for side, pictures in zip((options.first, options.second), sides, strict=True):
        if not pictures:
            raise DataError(f"{side} has no picture that could be scored")
    header = ranking.header
    assert header is not None
    noise = {"score": header.noise, **header.column_noise, header.score: header.noise}
    if options.noise is not None:
        noise = dict.fromkeys(noise, options.noise)
    return CompareReport(
        first=options.first,
        second=options.second,
        line=header.line(),
        warning=ranking.warning,
        comparison=compare_pictures(*sides, noise),
        errors=ranking.errors,
    )


def _picture(row: RankedImage, ranking: Ranking) -> ScoredPicture:
    """A row by its own name and seed; the score that orders comes first, under its name or the sum's."""
    from clipcond.rerank.comparing import ScoredPicture

    order = ranking.header.score if ranking.header else "score"
    scores = {order: row.score or 0.0} | {name: value for name, value in row.scores.items() if name not in _DERIVED}
    return ScoredPicture(prompt=row.prompt or "", name=row.path.name, seed=row.seed or "", scores=scores)


def _read(path: Path, options: CompareOptions, events: Events) -> list[ScoredPicture]:
    """The rows of a table that have the scores. Raises DataError."""
    from clipcond.rerank.comparing import ScoredPicture
    from clipcond.rerank.tables import IMAGE_COLUMNS, PROMPT_COLUMNS, column_of, maybe_column_of, read_table

    rows = read_table(path)
    image = column_of(path, rows, IMAGE_COLUMNS, "picture")
    prompt = column_of(path, rows, PROMPT_COLUMNS, "prompt")
    seed = maybe_column_of(rows, ("seed",))
    wanted = [name.strip() for name in (options.score or "score").split(",")]
    for name in wanted:
        if name not in rows[0]:
            raise DataError(f"{path} has no column {visible(name)!r} (it has {', '.join(map(visible, rows[0]))})")
    found = []
    for row in rows:
        scores = [_number(row.get(name)) for name in wanted]
        if row.get(prompt) and row.get(image) and None not in scores:
            numbers = {name: value for name, value in zip(wanted, scores, strict=True) if value is not None}
            name = Path(row[image]).name
            found.append(ScoredPicture(
                prompt=row[prompt], name=name, seed=(row.get(seed) or "") if seed else "", scores=numbers
            ))  # fmt: skip
    if len(found) < len(rows):
        events(Note(f"{len(rows) - len(found):,} of {len(rows):,} rows of {path} have no score or no prompt; left out"))
    if not found:
        raise DataError(f"{path} has no row with a prompt and a number in {', '.join(map(visible, wanted))}")
    return found


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
