"""From the plan of one encoder to what it reads: rows of ids, a weight and a segment for each place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from clipcond.encode.rows import TokenSequence
from clipcond.prompt.families import CLIP_FRAME, Frame
from clipcond.prompt.layout import EmbeddingToken, PlannedToken
from clipcond.prompt.plan import Chunk, EncoderPlan

Inversions = Mapping[str, Sequence[int | str]]
_NONE: Inversions = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """What one encoder reads of one prompt, in K chunks of L places.

    weights: 1 on special tokens and padding.   segments: the number of the piece that a token was written in, -1 on
    special tokens and padding.   parts: the part of the prompt that a chunk belongs to.   counts: its content tokens.
    weighted: prompt[start:end] from its first to its last token of another weight than 1, None where all are 1.
    """

    rows: tuple[TokenSequence, ...]  # (K)
    weights: Tensor  # (K, L) float32, on the CPU
    segments: Tensor  # (K, L) int64, on the CPU
    parts: tuple[int, ...]  # (K)
    counts: tuple[int, ...]  # (K)
    weighted: tuple[tuple[int, int] | None, ...]  # (K)

    def of_part(self, part: int) -> Reading:
        """The chunks of one part only."""
        at = [number for number, each in enumerate(self.parts) if each == part]
        return Reading(
            rows=tuple(self.rows[number] for number in at),
            weights=self.weights[at],
            segments=self.segments[at],
            parts=(part,) * len(at),
            counts=tuple(self.counts[number] for number in at),
            weighted=tuple(self.weighted[number] for number in at),
        )


def read(plan: EncoderPlan, *, inversions: Inversions = _NONE) -> Reading:
    """What an encoder reads of its plan.

    inversions: for each name that the plan's embedding tokens bear, what stands for its vectors, in order: an id of the
    encoder's own token table, or the digest of a vector that is handed over beside the rows.
    Chunks of different lengths (T5 beyond its limit, in several parts) become as long as the longest.
    """
    length = max(chunk.frame.length for chunk in plan.chunks)
    weights = torch.ones(len(plan.chunks), length)
    segments = torch.full((len(plan.chunks), length), -1)
    for number, chunk in enumerate(plan.chunks):
        first = _first(chunk.frame)
        content = slice(first, first + len(chunk.tokens))
        weights[number, content] = torch.tensor([token.weight for token in chunk.tokens])
        segments[number, content] = torch.tensor(chunk.segments or [0] * len(chunk.tokens))
    return Reading(
        rows=tuple(_row(chunk, plan.pad_id, length, inversions) for chunk in plan.chunks),
        weights=weights,
        segments=segments,
        parts=tuple(chunk.part for chunk in plan.chunks),
        counts=tuple(len(chunk.tokens) for chunk in plan.chunks),
        weighted=tuple(_weighted(chunk.tokens) for chunk in plan.chunks),
    )


def empty_row(pad_id: int, *, frame: Frame = CLIP_FRAME, length: int | None = None) -> TokenSequence:
    """The row of the empty prompt, of `length` places or as many as the frame has."""
    opening = [] if frame.opening is None else [frame.opening]
    ids = [*opening, frame.closing]
    return TokenSequence((*ids, *[pad_id] * ((length or frame.length) - len(ids))))


def _row(chunk: Chunk, pad_id: int, length: int, inversions: Inversions) -> TokenSequence:
    ids, vectors, first = chunk.ids(pad_id), [], _first(chunk.frame)
    for number, token in enumerate(chunk.tokens):
        if isinstance(token, EmbeddingToken):
            found = inversions[token.piece][token.vector]
            if isinstance(found, int):
                ids[first + number] = found
            else:
                vectors.append((first + number, found))
    return TokenSequence((*ids, *[pad_id] * (length - len(ids))), vectors=tuple(vectors))


def _first(frame: Frame) -> int:
    """Where the content starts."""
    return int(frame.opening is not None)


def _weighted(tokens: Sequence[PlannedToken]) -> tuple[int, int] | None:
    found = [token for token in tokens if token.weight != 1]
    return (found[0].start, found[-1].end) if found else None
