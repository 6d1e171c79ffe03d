"""One encoder's pass over everything that several prompts need: chunks, empty prompts, masked variants, each row once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from clipcond.condition.cache import Cache, States
from clipcond.condition.encoder_input import Reading
from clipcond.condition.encoding import encode
from clipcond.condition.families import PooledFrom
from clipcond.condition.weighting import MaskedChunk, Method, Needs, Weighed, needs, variant_row, weigh
from clipcond.encode.rows import TokenSequence
from clipcond.encode.tower import Tower
from clipcond.errors import ModelError

_NONE: Mapping[str, Tensor] = MappingProxyType({})


class EncoderPass:
    """Collects rows with `add` and `add_empty`, encodes all of them at once in `run`, and is asked for states then."""

    def __init__(self, tower: Tower, *, method: Method, comma: int, vectors: Mapping[str, Tensor] = _NONE) -> None:
        """comma: the id of `,` in the encoder's vocabulary.   vectors: (D,) each, by the digests that rows name."""
        self._tower, self._method, self._comma, self._vectors = tower, method, comma, vectors
        self._rows: dict[TokenSequence, None] = {}
        self._needs: dict[int, tuple[Reading, Needs]] = {}  # by identity: readings hold tensors
        self._states: Mapping[TokenSequence, States] = {}

    def add(self, reading: Reading, *, weighted: bool = True) -> Needs:
        """The rows of a reading, and with `weighted` those that its weights need; what they need is returned.

        Only variants are added by it: an empty row is the caller's to add.
        """
        self._rows.update(dict.fromkeys(reading.rows))
        if not weighted:
            return Needs()
        wanted = self.needs(reading)
        self._rows.update(dict.fromkeys(self._variants(reading, wanted).values()))
        return wanted

    def needs(self, reading: Reading) -> Needs:
        """What the weights of a reading need besides its own rows."""
        if not any(reading.weighted):
            return Needs()
        if id(reading) not in self._needs:
            self._needs[id(reading)] = reading, needs(reading.weights, reading.segments, self._method)
        return self._needs[id(reading)][1]

    def add_empty(self, row: TokenSequence) -> None:
        """The row of an empty prompt."""
        self._rows[row] = None

    def run(self, *, clip_skip: int, final_norm: bool, cache: Cache | None) -> None:
        """Encode everything that was added, in one batch as far as rows are of one length and memory allows."""
        self._states = encode(
            self._tower, self._rows, vectors=self._vectors, clip_skip=clip_skip, final_norm=final_norm, cache=cache
        )

    def hidden(self, reading: Reading) -> Tensor:
        """(K, L, D), without weights."""
        return torch.stack([self._states[row].hidden for row in reading.rows])

    def empty(self, row: TokenSequence) -> Tensor:
        """(L, D)."""
        return self._states[row].hidden

    def variants(self, reading: Reading) -> dict[MaskedChunk, Tensor]:
        """(L, D) of each variant that the weights of a reading need."""
        rows = self._variants(reading, self.needs(reading))
        return {key: self._states[row].hidden for key, row in rows.items()}

    def pooled(self, reading: Reading, which: PooledFrom) -> Tensor:
        """(K, P) of its chunks, never weighted. Raises ModelError where the encoder has no such vector."""
        found = [getattr(self._states[row], which) for row in reading.rows]
        if any(vector is None for vector in found):
            raise ModelError(f"a text encoder gives no {which} vector, which its family is conditioned on")
        return torch.stack(found)

    def _variants(self, reading: Reading, wanted: Needs) -> dict[MaskedChunk, TokenSequence]:
        return {each: variant_row(reading.rows[each.chunk], each, self._comma) for each in wanted.variants}


def weigh_together(
    passes: Sequence[EncoderPass], readings: Sequence[Reading], *, method: Method, empties: Sequence[TokenSequence]
) -> tuple[list[Tensor], tuple[int, ...]]:
    """Weigh the states of one prompt in encoders that lie side by side as if they were one.

    readings, empties: one for each pass; the weights of all readings are alike.
    Returns the states (K, L, D) of each, where weights count on the device of the first, and the chunks whose mean could
    not be restored.
    """
    hidden = [each.hidden(reading) for each, reading in zip(passes, readings, strict=True)]
    if not any(readings[0].weighted):
        return hidden, ()
    wanted = passes[0].needs(readings[0])
    variants = [each.variants(reading) for each, reading in zip(passes, readings, strict=True)]
    weighed: Weighed = weigh(
        _beside(hidden),
        readings[0].weights,
        readings[0].segments,
        method=method,
        empty=_beside([each.empty(row) for each, row in zip(passes, empties, strict=True)]) if wanted.empty else None,
        variants={key: _beside([each[key] for each in variants]) for key in wanted.variants},
    )
    widths = [each.shape[-1] for each in hidden]
    return list(torch.split(weighed.hidden, widths, dim=-1)), weighed.near_zero


def _beside(states: Sequence[Tensor]) -> Tensor:
    """States of several encoders on the width; a pipeline may have its encoders on different devices."""
    return states[0] if len(states) == 1 else torch.cat([each.to(states[0].device) for each in states], dim=-1)


def alike(readings: Sequence[Reading]) -> bool:
    """Whether readings have the same weights at the same places."""
    first = readings[0]
    return all(
        each.parts == first.parts
        and torch.equal(each.weights, first.weights)
        and torch.equal(each.segments, first.segments)
        for each in readings
    )
