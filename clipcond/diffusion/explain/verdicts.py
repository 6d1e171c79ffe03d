"""Findings of an explanation: phrases that do nothing, act through another one alone, or where another one was meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clipcond.diffusion.explain.explanation import ExplainedPhrase
from clipcond.diffusion.explain.places import named_cells, strongest_cell
from clipcond.diffusion.findings import PlacedFinding
from clipcond.wording import visible

Cells = Sequence[Sequence[Sequence[float]]]  # (P, 3, 3)


def verdicts(phrases: Sequence[ExplainedPhrase], cells: Cells) -> Iterator[PlacedFinding]:
    """Yield what stands out.

    cells: of each phrase, what each cell of a 3×3 grid holds of its map, together 1; of the first picture.
    """
    for phrase in phrases:
        if phrase.cut:
            yield _warn("phrase-cut", phrase, f"“{_quoted(phrase)}” is never read: the stock pipeline cuts it off")
        elif phrase.dead:
            message = f"“{_quoted(phrase)}” does next to nothing: {phrase.strength:.1%} of the whole prompt's effect"
            yield _warn("phrase-dead", phrase, message)
        elif phrase.through is not None:
            message = f"“{_quoted(phrase)}” acts only through “{visible(phrase.through)}”, whose states carry it"
            yield _warn("acts-through", phrase, message)
    yield from _elsewhere(phrases, cells)


def _elsewhere(phrases: Sequence[ExplainedPhrase], cells: Cells) -> Iterator[PlacedFinding]:
    """Yield the phrases that name a place and act in another one, with the phrase that was meant to act there."""
    meant = [named_cells(each.text) if each.side == "prompt" else None for each in phrases]
    for phrase, own, named in zip(phrases, cells, meant, strict=True):
        place = strongest_cell(own)
        if phrase.dead or named is None or place in named:
            continue
        there = next((each for each, other in zip(phrases, meant, strict=True) if other == frozenset({place})), None)
        why = "which it does not say" if there is None else f"where “{_quoted(there)}” was meant to"
        yield _warn("acts-elsewhere", phrase, f"“{_quoted(phrase)}” acts {_at(place)}, {why}")


def _at(place: str) -> str:
    return "in the center" if place == "center" else f"at the {place}"


def _quoted(phrase: ExplainedPhrase) -> str:
    text = visible(" ".join(phrase.text.split()))
    return text if len(text) <= 60 else text[:59] + "…"


def _warn(code: str, phrase: ExplainedPhrase, message: str) -> PlacedFinding:
    return PlacedFinding(code, message, phrase.start, phrase.end, phrase.side, 0)
