"""The small language of fused scores: `0.7*clipscore + 0.3*(aesthetic - iqa)`, a weighted sum of columns.

Every column is turned into z-scores within its prompt before it is weighed, so that weights mean the same whatever the
columns' scales are. A name with other characters than letters, digits, `_` and `.` stands in quotes: `"HPS v3"`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from clipcond.errors import ConfigError
from clipcond.score.checks import vector
from clipcond.score.normalise import z_scores
from clipcond.wording import visible

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])|(?P<name>[^\W\d][\w.]*)"
    r"|(?P<quote>[\"'`])(?P<quoted>[^\"'`]+)(?P=quote)|(?P<sign>[-+*()]))"
)
_DEEPEST = 50  # parentheses in parentheses
_LONGEST = 2000  # characters
_SHOWN = 30  # characters to each side of a mistake


class ExpressionError(ConfigError):
    """A mistake in a small language, with its place: `source[start:end]`."""

    def __init__(self, problem: str, source: str, start: int, end: int) -> None:
        super().__init__(problem, source, start, end)
        self.problem, self.source, self.start, self.end = problem, source, start, end

    def __str__(self) -> str:
        """The problem; the source around the place; a caret under it."""
        first = max(0, self.start - _SHOWN)
        before, after = visible(self.source[first : self.start]), visible(self.source[self.start : self.end + _SHOWN])
        marks = "^" * min(max(1, self.end - self.start), _SHOWN)
        return f"{self.problem}\n  {before}{after}\n  {' ' * _display_width(before)}{marks}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A column with its weight, and where it was first named: source[start:end]."""

    column: str
    weight: float
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreExpression:
    """A weighted sum of columns, each named once, in the order in which they were first named."""

    source: str
    terms: tuple[Term, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(term.column for term in self.terms)

    def check(self, columns: Collection[str]) -> None:
        """Raise ExpressionError, naming the nearest, for a column that is not among `columns`."""
        for term in self.terms:
            if term.column not in columns:
                near = get_close_matches(term.column, columns, n=1, cutoff=0.4)
                hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(columns))}"
                raise ExpressionError(f"no column {term.column}; {hint}", self.source, term.start, term.end)

    def evaluate(self, columns: Mapping[str, Numbers], prompts: Sequence[Hashable]) -> NDArray[np.float64]:
        """Σ weight · z-score within the prompt, (N,) float64.

        columns: (N,) by name.   prompts: N keys.   Raises ExpressionError for a column that is not there; ConfigError
        and ShapeError, naming it, for one with NaN or another length.
        """
        self.check(columns)
        total = np.zeros(len(prompts))
        for term in self.terms:
            total += term.weight * z_scores(vector(term.column, columns[term.column], len(prompts)), prompts)
        return total


def parse_expression(source: str) -> ScoreExpression:
    """Read a sum of columns with weights: numbers, names, `+`, `-`, `*` and parentheses.

    Raises ExpressionError for what is none: two columns multiplied, a number added alone, a column that cancels out.
    """
    if len(source) > _LONGEST:
        raise ConfigError(f"the score expression has {len(source)} characters; expected {_LONGEST} at most")
    parser = _Parser(source)
    result = parser.sum(0)
    parser.expect_end()
    if not result.weights:
        raise ExpressionError("no column is named; write one as in 0.7*clipscore", source, 0, len(source))
    terms = tuple(
        Term(column=column, weight=weight, start=start, end=end)
        for column, (weight, start, end) in result.weights.items()
    )
    for term in terms:
        if term.weight == 0 or not np.isfinite(term.weight):
            problem = f"{term.column} weighs {term.weight:g} in all; leave it out or give it another weight"
            raise ExpressionError(problem, source, term.start, term.end)
    return ScoreExpression(source=source, terms=terms)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Linear:
    """A number, or a sum of columns: their weights and places. Never both."""

    number: float
    weights: dict[str, tuple[float, int, int]]
    start: int
    end: int

    def times(self, factor: float) -> _Linear:
        weights = {name: (weight * factor, start, end) for name, (weight, start, end) in self.weights.items()}
        return _Linear(number=self.number * factor, weights=weights, start=self.start, end=self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    kind: str  # number, name, sign or end
    text: str
    start: int
    end: int


class _Parser:
    """The grammar, one method a rule.

    sum = product (("+" | "-") product)*;  product = factor ("*" factor)*;
    factor = ("-" | "+")* (number | name | "(" sum ")")
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._tokens = list(_tokens(source))
        self._next = 0

    def sum(self, depth: int) -> _Linear:
        result = self._product(depth)
        while (sign := self._take("+", "-")) is not None:
            right = self._product(depth)
            result = self._added(result, right.times(-1) if sign.text == "-" else right)
        return result

    def expect_end(self) -> None:
        token = self._tokens[self._next]
        if token.kind != "end":
            raise self._error(f"expected +, - or * before {token.text}", token)

    def _product(self, depth: int) -> _Linear:
        result = self._factor(depth)
        while (sign := self._take("*")) is not None:
            right = self._factor(depth)
            if result.weights and right.weights:
                raise self._error(
                    "two columns cannot be multiplied; a column takes a number, as in 0.5*clipscore", sign
                )
            product = right.times(result.number) if right.weights else result.times(right.number)
            result = _Linear(number=product.number, weights=product.weights, start=result.start, end=right.end)
        return result

    def _factor(self, depth: int) -> _Linear:
        factor = 1.0
        while (sign := self._take("+", "-")) is not None:
            factor = -factor if sign.text == "-" else factor
        token = self._tokens[self._next]
        self._next += 1
        if token.kind == "number":
            return _Linear(number=float(token.text) * factor, weights={}, start=token.start, end=token.end)
        if token.kind == "name":
            weights = {token.text: (factor, token.start, token.end)}
            return _Linear(number=0.0, weights=weights, start=token.start, end=token.end)
        if token.text == "(":
            return self._parenthesis(token, depth).times(factor)
        raise self._error("expected a column, a number or (", token)

    def _parenthesis(self, opening: _Token, depth: int) -> _Linear:
        if depth >= _DEEPEST:
            raise self._error(f"more than {_DEEPEST} parentheses lie in one another", opening)
        inside = self.sum(depth + 1)
        if (closing := self._take(")")) is None:
            raise self._error("this parenthesis is not closed", opening)
        return _Linear(number=inside.number, weights=inside.weights, start=opening.start, end=closing.end)

    def _added(self, left: _Linear, right: _Linear) -> _Linear:
        for part, other in ((left, right), (right, left)):
            if other.weights and not part.weights:
                problem = "a number is added alone, which changes no order; write it as a weight, as in 0.5*clipscore"
                raise ExpressionError(problem, self.source, part.start, part.end)
        weights = dict(left.weights)
        for name, (weight, start, end) in right.weights.items():
            before, *place = weights.get(name, (0.0, start, end))
            weights[name] = (before + weight, place[0], place[1])
        return _Linear(number=left.number + right.number, weights=weights, start=left.start, end=right.end)

    def _take(self, *signs: str) -> _Token | None:
        token = self._tokens[self._next]
        if token.kind != "sign" or token.text not in signs:
            return None
        self._next += 1
        return token

    def _error(self, problem: str, token: _Token) -> ExpressionError:
        return ExpressionError(problem, self.source, token.start, token.end)


def _tokens(source: str) -> Iterator[_Token]:
    position = 0
    while source[position:].strip():
        match = _TOKEN.match(source, position)
        if match is None:
            start = position + len(source[position:]) - len(source[position:].lstrip())
            raise ExpressionError(f"{visible(source[start])} is not understood here", source, start, start + 1)
        kind = match.lastgroup or ""
        start = match.start("quote") if kind == "quoted" or match["quote"] else match.start(kind)
        yield _Token(
            kind="name" if match["quote"] else kind,
            text=match["quoted"] if match["quote"] else match[kind],
            start=start,
            end=match.end(),
        )
        position = match.end()
    yield _Token(kind="end", text="", start=len(source), end=len(source))


def _display_width(text: str) -> int:
    """Columns that text takes in a terminal: two for wide characters, none for combining ones."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)
