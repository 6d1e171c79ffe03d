"""The chunks that a weighting needs encoded a second time with tokens hidden, and the share of each in the result.

Tokens are found by chunk and position, in the order of the prompt; special tokens and padding have segment -1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import pi, tan
from typing import Literal, NamedTuple

Weights = Sequence[Sequence[float]]  # (K, L)
Segments = Sequence[Sequence[int]]  # (K, L)
LEAST = 1e-5  # compel: the tangent of a quarter turn would be infinite


@dataclass(frozen=True, slots=True)
class MaskedChunk:
    """A chunk to be encoded again with the tokens at `positions` hidden.

    positions: ascending, counted from 0 in the whole row, BOS included.
    how: `masked`, nothing attends to them; `replaced`, commas stand in their places.
    """

    chunk: int
    positions: tuple[int, ...]
    how: Literal["masked", "replaced"]


class Term(NamedTuple):
    """A variant and its factor in a sum over variants."""

    factor: float
    variant: MaskedChunk


class TokenPosition(NamedTuple):
    """The position of a content token, with its weight and segment."""

    chunk: int
    position: int
    weight: float
    segment: int


def content(weights: Weights, segments: Segments) -> Iterator[TokenPosition]:
    """The content tokens of a prompt, in its order."""
    for chunk, (row, marks) in enumerate(zip(weights, segments, strict=True)):
        for position, (weight, segment) in enumerate(zip(row, marks, strict=True)):
            if segment >= 0:
                yield TokenPosition(chunk, position, weight, segment)


def tan_share(weight: float) -> float:
    """compel's factor of the masked encoding beside 1 of the unmasked one: 0 at weight 1, 1 at 0.5, 63,662 at 0."""
    return tan((1 - max(LEAST, weight)) * pi / 2)


def compel_terms(weights: Weights, segments: Segments) -> list[Term]:
    """For each chunk of each fragment below 1 the share of the chunk with the fragment masked; the rest is unmasked.

    A fragment is a run of content tokens of one weight, over chunk borders too: compel joins neighbours of equal
    weight before it encodes. Where one goes on in the next chunk, compel also masks EOS and padding of the chunk that it
    leaves, all but the last position of the row.
    """
    fragments: list[tuple[float, list[TokenPosition]]] = []
    for weight, run in groupby(content(weights, segments), key=lambda place: place.weight):
        if weight < 1:
            fragments.append((tan_share(weight), list(run)))
    total = 1 + sum(factor for factor, _ in fragments)
    return [
        Term(
            factor / total,
            MaskedChunk(chunk, _compel_positions(list(places), len(weights[0]), chunk < run[-1].chunk), "masked"),
        )
        for factor, run in fragments
        for chunk, places in groupby(run, key=lambda place: place.chunk)
    ]


def _compel_positions(places: Sequence[TokenPosition], length: int, goes_on: bool) -> tuple[int, ...]:
    own = tuple(place.position for place in places)
    return own + tuple(range(own[-1] + 1, length - 1)) if goes_on else own


def down_terms(weights: Weights, segments: Segments) -> list[Term]:
    """ADV's rule for weights below 1, chunk by chunk: nested masks, each level hides the tokens below it.

    With the distinct weights w1 < … < wk = 1 of a chunk (special tokens weigh 1) the result is Σ (wᵢ − wᵢ₋₁)·Eᵢ, w0 = 0,
    where E1 hides nothing and each next E also the tokens of the next weight. The terms are those of E2 and up.
    """
    terms = []
    for chunk, run in groupby(content(weights, segments), key=lambda place: place.chunk):
        below = [place for place in run if place.weight < 1]
        levels = sorted({place.weight for place in below})
        for level, above in pairwise([*levels, 1.0]):
            hidden = tuple(place.position for place in below if place.weight <= level)
            terms.append(Term(above - level, MaskedChunk(chunk, hidden, "replaced")))
    return terms


def up_variants(weights: Weights, segments: Segments) -> list[MaskedChunk]:
    """For each chunk of each segment that weighs more than 1 the chunk with the segment's tokens replaced."""
    heavy: dict[tuple[int, int], list[int]] = {}
    for place in content(weights, segments):
        if place.weight > 1:
            heavy.setdefault((place.chunk, place.segment), []).append(place.position)
    return [MaskedChunk(chunk, tuple(positions), "replaced") for (chunk, _), positions in heavy.items()]
