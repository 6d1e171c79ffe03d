"""Scored pictures put in order and chosen: thresholds, near-duplicates, diversity, top; ties marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from clipcond.rerank.rows import RankedImage
from clipcond.rerank.settings import Selection
from clipcond.score.checks import groups_of
from clipcond.score.duplicates import Candidate, best_of_group, near_duplicates
from clipcond.score.selection import mmr, stretched
from clipcond.score.ties import tied_ranks

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Scored:
    """R rows with their scores. vectors: (R, P) unit rows.   modified: seconds since 1970.   several: a picture may have
    several rows, each with another prompt."""

    rows: Sequence[RankedImage]
    vectors: NDArray[np.float32]
    modified: Sequence[float]
    noise: float
    several: bool


def choose(scored: Scored, selection: Selection) -> list[RankedImage]:
    """Return the rows in their final order with ranks and marks: what is kept, then duplicates, then what fell through.

    Where each prompt is ranked apart, prompts stand in the order of their first pictures' paths.
    """
    rows = _grouped(scored, selection)
    scopes = _scopes(rows, selection.per_prompt)
    return [row for scope in scopes for row in _ranked(rows, scope, scored, selection)]


def _scopes(rows: Sequence[RankedImage], per_prompt: bool) -> list[list[int]]:
    """Row numbers that are ranked together, each scope by score and path."""
    order = sorted(range(len(rows)), key=lambda n: (-_score(rows[n]), str(rows[n].path), rows[n].prompt or ""))
    if not per_prompt:
        return [order]
    scopes: dict[str, list[int]] = {}
    for n in sorted(order, key=lambda n: (str(rows[n].path), rows[n].prompt or "")):
        scopes.setdefault(rows[n].prompt or "", [])
    for n in order:
        scopes[rows[n].prompt or ""].append(n)
    return list(scopes.values())


def _grouped(scored: Scored, selection: Selection) -> list[RankedImage]:
    """The rows with the numbers of their groups of near-duplicates, of one prompt where a picture has several rows."""
    rows = list(scored.rows)
    if selection.duplicates is None or not rows:
        return rows
    keys = [row.prompt if scored.several or selection.per_prompt else None for row in rows]
    number = 0
    for members in groups_of(keys, len(rows)):
        by_path = sorted(members.tolist(), key=lambda n: str(rows[n].path))
        for group in near_duplicates(scored.vectors[by_path], threshold=selection.duplicates):
            number += 1
            for place in group:
                rows[by_path[place]] = replace(rows[by_path[place]], group=number)
    return rows


def _ranked(
    rows: Sequence[RankedImage], scope: Sequence[int], scored: Scored, selection: Selection
) -> list[RankedImage]:
    passed = [n for n in scope if all(bound.passes(number_of(rows[n], bound.column)) for bound in selection.thresholds)]
    fallen = sorted(set(scope) - set(passed), key=scope.index) if len(passed) < len(scope) else []
    copies = _copies(rows, passed, scored)
    passed = [n for n in passed if n not in copies]
    most = selection.most(len(passed))
    order = _varied(rows, passed, scored, selection.diversity, most)
    tied = _tied(rows, scope, scored.noise)
    ending = (*sorted(copies, key=scope.index), *fallen)
    return [
        replace(rows[n], rank=place + 1, kept=place < most, tied=n in tied) for place, n in enumerate((*order, *ending))
    ]


def _copies(rows: Sequence[RankedImage], passed: Sequence[int], scored: Scored) -> set[int]:
    """Row numbers of near-duplicates, without the best of each group."""
    groups: dict[int, list[int]] = {}
    for n in passed:
        if (number := rows[n].group) is not None:
            groups.setdefault(number, []).append(n)
    found: set[int] = set()
    for members in groups.values():
        candidates = [_candidate(rows[n], scored.modified[n]) for n in members]
        best = members[best_of_group(candidates, noise=scored.noise)]
        found |= set(members) - {best}
    return found


def _candidate(row: RankedImage, modified: float) -> Candidate:
    pixels = (row.width or 0) * (row.height or 0)
    return Candidate(path=str(row.path), score=_score(row), pixels=pixels, modified=modified)


def _varied(rows: Sequence[RankedImage], passed: list[int], scored: Scored, diversity: float, most: int) -> list[int]:
    """By score, or by maximal marginal relevance on scores stretched within their prompt."""
    if not diversity or not passed:
        return passed
    relevance = stretched([_score(rows[n]) for n in passed], [rows[n].prompt for n in passed])
    picks = mmr(relevance, scored.vectors[passed].astype(np.float64), diversity, most)
    chosen = set(picks)
    return [passed[n] for n in (*picks, *(n for n in range(len(passed)) if n not in chosen))]


def _tied(rows: Sequence[RankedImage], scope: Sequence[int], noise: float) -> set[int]:
    names = [f"{n:09}" for n in range(len(scope))]
    ranks = tied_ranks([_score(rows[n]) for n in scope], names, noise=noise)
    return {n for n, open_rank in zip(scope, ranks.tied, strict=True) if open_rank}


def number_of(row: RankedImage, column: str) -> float:
    """A number of a row by its column's name."""
    facts: Mapping[str, float | int | None] = {
        "score": row.score, "share_seen": row.share_seen, "width": row.width, "height": row.height,
    }  # fmt: skip
    found = facts.get(column)
    return float(row.scores[column] if found is None else found)


def _score(row: RankedImage) -> float:
    return row.score or 0.0
