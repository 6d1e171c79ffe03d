"""The input of an encoder, made from its plan: rows of ids, with a weight and a segment for each position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from clipcond.encode.rows import TokenSequence
from clipcond.prompt.families import CLIP_FRAME, Frame
from clipcond.prompt.layout import EmbeddingToken, PlannedToken
from clipcond.prompt.plan import Chunk, EncoderPlan, Part

VectorNames = Mapping[str, Sequence[int | str]]
_NONE: VectorNames = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderInput:
    """The input of one encoder for one prompt, in K chunks of L positions.

    weights: 1 on special tokens and padding.   segments: the number of the piece that a token was written in, -1 on
    special tokens and padding.   part_numbers: the part of the prompt that a chunk belongs to.   counts: its content
    tokens.   weighted: prompt[start:end] from its first to its last token of another weight than 1, None where all are 1.
    parts: how the parts of the prompt are joined; none for a prompt that is one.
    """

    rows: tuple[TokenSequence, ...]  # (K)
    weights: Tensor  # (K, L) float32, on the CPU
    segments: Tensor  # (K, L) int64, on the CPU
    part_numbers: tuple[int, ...]  # (K)
    counts: tuple[int, ...]  # (K)
    weighted: tuple[tuple[int, int] | None, ...]  # (K)
    parts: tuple[Part, ...] = ()
    _of_parts: tuple[EncoderInput, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_of_parts", tuple(self.of_part(number) for number in range(len(self.parts))))

    @property
    def length(self) -> int:
        """L, the positions of a chunk."""
        return int(self.weights.shape[1])

    @property
    def by_part(self) -> tuple[EncoderInput, ...]:
        """The input of each part; of a prompt that is one, the input itself."""
        return self._of_parts or (self,)

    @property
    def end_to_end(self) -> bool:
        """True if the chunks follow one another: in a prompt that is one, and in parts that are not mixed."""
        return not self.parts or self.parts[0].how in ("concatenate", "noise")

    @property
    def joined_chunks(self) -> int:
        """The number of chunks after the parts are joined."""
        return len(self.rows) if self.end_to_end else max(len(each.rows) for each in self._of_parts)

    def of_part(self, part: int) -> EncoderInput:
        """The chunks of one part only."""
        at = [number for number, each in enumerate(self.part_numbers) if each == part]
        return EncoderInput(
            rows=tuple(self.rows[number] for number in at),
            weights=self.weights[at],
            segments=self.segments[at],
            part_numbers=(part,) * len(at),
            counts=tuple(self.counts[number] for number in at),
            weighted=tuple(self.weighted[number] for number in at),
        )


def encoder_input(
    plan: EncoderPlan,
    *,
    parts: tuple[Part, ...] = (),
    vector_names: VectorNames = _NONE,
    hidden: Sequence[tuple[int, int]] = (),
    mask_padding: bool = False,
) -> EncoderInput:
    """Return the input of an encoder for its plan.

    parts: of the prompt's plan.   hidden: passages of the prompt, as (start, end), whose tokens nothing attends to.
    mask_padding: nothing attends to the padding either.
    vector_names: for each name that the plan's embedding tokens bear, one entry for each of
    its vectors, in order: an id of the encoder's own token table, or the digest of a vector that goes along with the rows.
    Chunks of different lengths (T5 beyond its limit, in several parts) become as long as the longest.
    """
    length = max(chunk.frame.length for chunk in plan.chunks)
    weights = torch.ones(len(plan.chunks), length)
    segments = torch.full((len(plan.chunks), length), -1)
    for number, chunk in enumerate(plan.chunks):
        first = _first_position(chunk.frame)
        content = slice(first, first + len(chunk.tokens))
        weights[number, content] = torch.tensor([token.weight for token in chunk.tokens])
        segments[number, content] = torch.tensor(chunk.segments or [0] * len(chunk.tokens))
    return EncoderInput(
        rows=tuple(_row(chunk, plan.pad_id, length, vector_names, hidden, mask_padding) for chunk in plan.chunks),
        weights=weights,
        segments=segments,
        part_numbers=tuple(chunk.part for chunk in plan.chunks),
        counts=tuple(len(chunk.tokens) for chunk in plan.chunks),
        weighted=tuple(_weighted_span(chunk.tokens) for chunk in plan.chunks),
        parts=parts,
    )


def empty_row(
    pad_id: int, *, frame: Frame = CLIP_FRAME, length: int | None = None, mask_padding: bool = False
) -> TokenSequence:
    """Return the row of the empty prompt, of `length` positions or as many as the frame has."""
    opening = [] if frame.opening is None else [frame.opening]
    ids, length = [*opening, frame.closing], length or frame.length
    masked = tuple(range(len(ids), length)) if mask_padding else ()
    return TokenSequence((*ids, *[pad_id] * (length - len(ids))), masked)


def _row(
    chunk: Chunk,
    pad_id: int,
    length: int,
    vector_names: VectorNames,
    hidden: Sequence[tuple[int, int]],
    mask_padding: bool,
) -> TokenSequence:
    ids, vectors, first = chunk.ids(pad_id), [], _first_position(chunk.frame)
    for number, token in enumerate(chunk.tokens):
        if isinstance(token, EmbeddingToken):
            name = vector_names[token.piece][token.vector]
            if isinstance(name, int):
                ids[first + number] = name
            else:
                vectors.append((first + number, name))
    masked = [first + number for number, token in enumerate(chunk.tokens) if hidden and _within(token, hidden)]
    if mask_padding:
        masked += range(first + len(chunk.tokens) + 1, length)
    return TokenSequence((*ids, *[pad_id] * (length - len(ids))), tuple(masked), tuple(vectors))


def _within(token: PlannedToken, passages: Sequence[tuple[int, int]]) -> bool:
    """True if a token was written, also in part, in one of the passages."""
    return any(token.start < end and start < token.end for start, end in passages)


def _first_position(frame: Frame) -> int:
    """The position of the first content token."""
    return int(frame.opening is not None)


def _weighted_span(tokens: Sequence[PlannedToken]) -> tuple[int, int] | None:
    weighted = [token for token in tokens if token.weight != 1]
    return (weighted[0].start, weighted[-1].end) if weighted else None
