"""The settings of a ranking, checked before anything is read or loaded: which numbers, and which pictures to keep."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from clipcond.errors import ConfigError, OptionsError
from clipcond.score.expression import ExpressionError, ScoreExpression, parse_expression
from clipcond.wording import visible

if TYPE_CHECKING:
    from clipcond.rerank.external_scores import ExternalScores
    from clipcond.score.aesthetic import AestheticHead

LongPrompt = Literal["mean", "max", "first", "min"]
MISSING_NATS = 3.0  # over logit_scale: how far a missing phrase falls short of the others, e³ = 20 times less likely
DEFAULT_SCORE = "cosine"
COLUMNS = ("cosine", "clipscore", "logit", "probability", "pick", "margin", "refclipscore", "iqa", "aesthetic")
_WITHOUT_PROMPT = ("iqa", "aesthetic")
_DERIVED = ("score", "z", "percentile")  # of the score that orders
_FACTS = ("share_seen", "width", "height")
_THRESHOLD = re.compile(r"\s*(?P<column>[^<>=]+?)\s*(?P<sign>>=|<=|>|<|=>|=<)\s*(?P<value>[-+.\deE]+)\s*")
_DECIMAL_COMMA = re.compile(r"(?<![\w.])(\d+),(\d+)(?=\s*\*)")
_NO_STAR = re.compile(r"(?<![\w.])\d+(?:\.\d*)?\s*[^\W\d]")
_SHOWN = 40  # characters of what is wrong
_SPLIT = re.compile(r",(?=(?:[^\"'`]*[\"'`][^\"'`]*[\"'`])*[^\"'`]*$)")  # a comma outside of quotes


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A bound on a column: `clipscore>=0.7`."""

    column: str
    sign: Literal[">=", "<=", ">", "<"]
    value: float

    def passes(self, number: float) -> bool:
        """True if the number is within the bound."""
        if self.sign == ">=":
            return number >= self.value
        if self.sign == "<=":
            return number <= self.value
        return number > self.value if self.sign == ">" else number < self.value

    def __str__(self) -> str:
        """The bound as it is written."""
        return f"{self.column}{self.sign}{self.value:g}"


def parse_threshold(text: str) -> Threshold:
    """Read `COLUMN>=VALUE`, or a number alone, which is the least cosine. Raises OptionsError."""
    try:
        number = float(text)
    except ValueError:
        match = _THRESHOLD.fullmatch(text)
        if match is None:
            hint = "; write decimals with a point" if "," in text else ""
            raise OptionsError(f"--threshold {visible(text)!r}: expected COLUMN>=VALUE or a cosine{hint}") from None
        try:
            number = float(match["value"])
        except ValueError:
            raise OptionsError(f"--threshold {visible(text)!r}: {match['value']} is no number") from None
        signs: dict[str, Literal[">=", "<=", ">", "<"]] = {">": ">", "<": "<", "=<": "<=", "<=": "<="}
        column = match["column"].strip("\"'`")
        return Threshold(column=column, sign=signs.get(match["sign"], ">="), value=_finite(number))
    if not -1 <= number <= 1:
        raise OptionsError(f"threshold is {number:g}; expected a cosine from -1 to 1, or COLUMN>=VALUE")
    return Threshold(column="cosine", sign=">=", value=number)


def parse_scores(text: str) -> tuple[ScoreExpression, ...]:
    """Read columns and sums of them with commas between; the first orders. Raises OptionsError."""
    parts = [part.strip() for part in _SPLIT.split(text)]
    if comma := _DECIMAL_COMMA.search(text):
        raise OptionsError(f"--score: {comma[0]} has a comma, which parts two scores; write {comma[1]}.{comma[2]}")
    if not all(parts):
        raise OptionsError(
            "--score is empty; expected a column such as clipscore, or a sum such as 0.7*clipscore + 0.3*iqa"
        )
    return tuple(map(_parse_score, parts))


def _parse_score(text: str) -> ScoreExpression:
    """One column or sum; what is wrong with it in one line."""
    try:
        return parse_expression(text)
    except ExpressionError as error:
        place = "at its end" if error.start >= len(text) else f"at {visible(text[error.start : error.end])[:_SHOWN]!r}"
        hint = "; a weight is followed by *, as in 0.5*clipscore" if _NO_STAR.search(text) else ""
        shown = visible(text) if len(text) <= 2 * _SHOWN else visible(text[: 2 * _SHOWN]) + "…"
        raise OptionsError(f"--score {shown!r}, {place}: {error.problem}{hint}") from error
    except ConfigError as error:
        raise OptionsError(f"--score: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """The numbers to compute. scores: the first orders, columns of the others are shown beside it.

    long_prompt: what becomes of a prompt's chunks: `mean` weighs them by their tokens.   phrases: score them one by one; one
    that falls short of the others by the cosine `missing_margin`, by default 3 / logit_scale, is missing.
    distractors: other prompts, for `probability`.   references: pictures to be like, for `refclipscore`.
    external: numbers that another scorer made.   also: further columns, such as those of thresholds.
    Raises OptionsError for a column that cannot be computed from what is given.
    """

    scores: tuple[ScoreExpression, ...] = (parse_expression(DEFAULT_SCORE),)
    also: tuple[str, ...] = ()
    long_prompt: LongPrompt = "mean"
    phrases: bool = False
    missing_margin: float | None = None
    distractors: tuple[str, ...] = ()
    references: tuple[Path, ...] = ()
    aesthetic: AestheticHead | None = None
    external: ExternalScores | None = None

    def __post_init__(self) -> None:
        if self.long_prompt not in get_args(LongPrompt):
            raise OptionsError(
                f"long_prompt is {self.long_prompt!r}; expected one of {', '.join(get_args(LongPrompt))}"
            )
        given = self.external.columns if self.external else ()
        for name in self.columns:
            _check_column(name, (*COLUMNS, *given))
        if "probability" in self.columns and not self.distractors:
            raise OptionsError("probability needs --distractors FILE, other prompts, one a line")
        if "refclipscore" in self.columns and not self.references:
            raise OptionsError("refclipscore needs --reference, pictures to be like")
        if "aesthetic" in self.columns and self.aesthetic is None and "aesthetic" not in given:
            raise OptionsError("aesthetic needs --aesthetic FILE, a head for the model's vectors")

    @property
    def order(self) -> ScoreExpression:
        """The score that orders."""
        return self.scores[0]

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is computed: those of the default table first where they are, each once."""
        named = [name for score in self.scores for name in score.columns]
        named += [name for name in self.also if name not in (*_DERIVED, *_FACTS)]
        if "cosine" in named or "clipscore" in named:
            named = ["cosine", "clipscore", *named]
        if self.aesthetic is not None:
            named.append("aesthetic")
        if self.external is not None:
            named += self.external.columns
        return tuple(dict.fromkeys(named))

    @property
    def needs_prompt(self) -> bool:
        """True unless every number is about the picture alone."""
        given = self.external.columns if self.external else ()
        return self.phrases or any(name not in (*_WITHOUT_PROMPT, *given) for name in self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The choice of pictures to keep.

    top, top_percent: how many, or which share from 0 to 100 (rounded up), the smaller of both.   per_prompt: of each prompt.
    diversity: 0 by score alone, to 1 each unlike those before it.   duplicates: of pictures with at least this cosine the
    best alone is kept.   Raises OptionsError for numbers out of range.
    """

    top: int | None = None
    top_percent: float | None = None
    thresholds: tuple[Threshold, ...] = ()
    per_prompt: bool = False
    diversity: float = 0.0
    duplicates: float | None = None

    def __post_init__(self) -> None:
        if self.top is not None and self.top < 1:
            raise OptionsError(f"top is {self.top}; expected 1 or more")
        if self.top_percent is not None and not 0 < self.top_percent <= 100:
            raise OptionsError(f"top_percent is {self.top_percent:g}; expected above 0 and up to 100")
        if not 0 <= self.diversity <= 1:
            raise OptionsError(f"diversity is {self.diversity}; expected 0 to 1")
        if self.duplicates is not None and not -1 <= self.duplicates <= 1:
            raise OptionsError(f"duplicates is {self.duplicates}; expected a cosine from -1 to 1, such as 0.94")

    def check(self, columns: Collection[str]) -> None:
        """Raise OptionsError for a threshold on a column that is not computed."""
        for threshold in self.thresholds:
            _check_column(threshold.column, (*columns, *_DERIVED, *_FACTS))

    def most(self, count: int) -> int:
        """The number of pictures, of `count`, that may be kept."""
        share = count if self.top_percent is None else math.ceil(count * self.top_percent / 100 - 1e-9)
        return min(count, share, count if self.top is None else self.top)


def _check_column(name: str, columns: Collection[str]) -> None:
    if name not in columns:
        near = get_close_matches(name.casefold(), columns, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(columns)}"
        raise OptionsError(f"no column {visible(name)!r}; {hint}")


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise OptionsError(f"a threshold of {number} bounds nothing; expected a finite number")
    return number
