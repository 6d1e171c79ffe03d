"""One encoder's pass over all that the prompts of a call need: chunks, empty prompts and masked chunks, each row once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from clipcond.condition.cache import Cache, States
from clipcond.condition.encoder_input import EncoderInput
from clipcond.condition.families import PooledFrom
from clipcond.condition.weighting import MaskedChunk, Method, Needs, Weighed, needs, variant_row, weigh
from clipcond.encode.rows import TokenSequence
from clipcond.encode.tower import TextStates, Tower
from clipcond.errors import ModelError

_NO_VECTORS: Mapping[str, Tensor] = MappingProxyType({})
_NO_NEEDS = Needs()


class EncoderPass:
    """Collects rows with `add` and `add_empty`, encodes them all at once in `run`, and gives their states then."""

    def __init__(
        self,
        tower: Tower,
        *,
        method: Method,
        comma: int,
        empty_row: Callable[[int], TokenSequence],
        vectors: Mapping[str, Tensor] = _NO_VECTORS,
    ) -> None:
        """comma: the id of `,` in the encoder's vocabulary.   empty_row: the empty prompt's row of a length.
        vectors: (D,) each, by the digests that rows name.
        """
        self._tower, self._method, self._comma, self._vectors = tower, method, comma, vectors
        self._empty_row = empty_row
        self._empty_rows: dict[int, TokenSequence] = {}
        self._rows: dict[TokenSequence, None] = {}
        self._needs: dict[int, tuple[EncoderInput, Needs]] = {}  # by identity: inputs hold tensors
        self._states: Mapping[TokenSequence, States] = {}

    def add(self, encoder_input: EncoderInput, *, weighted: bool = True) -> None:
        """Collect the rows of an input, and with `weighted` those that its weights need."""
        self._rows.update(dict.fromkeys(encoder_input.rows))
        if weighted and (needed := self.needs(encoder_input)) is not _NO_NEEDS:
            self._rows.update(dict.fromkeys(self._variants(encoder_input, needed).values()))
            if needed.empty:
                self.add_empty(encoder_input.length)

    def add_empty(self, length: int) -> None:
        """Collect the row of an empty prompt of `length` positions."""
        if length not in self._empty_rows:
            self._empty_rows[length] = self._empty_row(length)
            self._rows[self._empty_rows[length]] = None

    def needs(self, encoder_input: EncoderInput) -> Needs:
        """Return the needs of an input's weights besides its own rows."""
        if not any(encoder_input.weighted):
            return _NO_NEEDS
        if id(encoder_input) not in self._needs:
            self._needs[id(encoder_input)] = (
                encoder_input,
                needs(encoder_input.weights, encoder_input.segments, self._method),
            )
        return self._needs[id(encoder_input)][1]

    def run(self, *, clip_skip: int, final_norm: bool, cache: Cache | None, fingerprint: str | None = None) -> None:
        """Encode all collected rows, in one batch as far as rows are of one length and memory allows.

        fingerprint: the tower's as it is now, where the caller knows it.
        """
        self._states = encode(
            self._tower,
            self._rows,
            vectors=self._vectors,
            clip_skip=clip_skip,
            final_norm=final_norm,
            cache=cache,
            fingerprint=fingerprint,
        )

    def hidden(self, encoder_input: EncoderInput) -> Tensor:
        """(K, L, D), without weights."""
        return torch.stack([self._states[row].hidden for row in encoder_input.rows])

    def empty(self, length: int) -> Tensor | None:
        """(L, D), None where no empty prompt of this length was collected."""
        row = self._empty_rows.get(length)
        return None if row is None else self._states[row].hidden

    def variants(self, encoder_input: EncoderInput) -> dict[MaskedChunk, Tensor]:
        """(L, D) of each masked chunk that the weights of an input need."""
        rows = self._variants(encoder_input, self.needs(encoder_input))
        return {key: self._states[row].hidden for key, row in rows.items()}

    def pooled(self, encoder_input: EncoderInput, which: PooledFrom) -> Tensor:
        """(K, P) of its chunks, never weighted. Raises ModelError where the encoder has no such vector."""
        vectors = [getattr(self._states[row], which) for row in encoder_input.rows]
        if any(vector is None for vector in vectors):
            raise ModelError(f"a text encoder gives no {which} vector, which its family is conditioned on")
        return torch.stack(vectors)

    def _variants(self, encoder_input: EncoderInput, needed: Needs) -> dict[MaskedChunk, TokenSequence]:
        return {each: variant_row(encoder_input.rows[each.chunk], each, self._comma) for each in needed.variants}


def weigh_together(
    passes: Sequence[EncoderPass], inputs: Sequence[EncoderInput], *, method: Method
) -> tuple[list[Tensor], tuple[int, ...]]:
    """Weigh the states of one prompt in encoders whose widths are concatenated as if they were one encoder.

    inputs: one for each pass; the weights of all are alike.
    Returns the states (K, L, D) of each, where weights count on the device of the first, and the chunks whose mean could
    not be restored.
    """
    hidden = [each.hidden(own) for each, own in zip(passes, inputs, strict=True)]
    first = inputs[0]
    if not any(first.weighted):
        return hidden, ()
    needed = passes[0].needs(first)
    variants = [each.variants(own) for each, own in zip(passes, inputs, strict=True)]
    empty = [each.empty(first.length) for each in passes] if needed.empty else []
    weighed: Weighed = weigh(
        _concat_width(hidden),
        first.weights,
        first.segments,
        method=method,
        empty=_concat_width([each for each in empty if each is not None]) if empty else None,
        variants={key: _concat_width([each[key] for each in variants]) for key in needed.variants},
    )
    widths = [each.shape[-1] for each in hidden]
    return list(torch.split(weighed.hidden, widths, dim=-1)), weighed.near_zero


def weighted_alike(inputs: Sequence[EncoderInput]) -> bool:
    """True if inputs have the same weights at the same positions."""
    first = inputs[0]
    return all(
        (each.parts, each.part_numbers) == (first.parts, first.part_numbers)
        and torch.equal(each.weights, first.weights)
        and torch.equal(each.segments, first.segments)
        for each in inputs
    )


def _concat_width(states: Sequence[Tensor]) -> Tensor:
    """States of several encoders on the width; a pipeline may have its encoders on different devices."""
    return states[0] if len(states) == 1 else torch.cat([each.to(states[0].device) for each in states], dim=-1)


def encode(
    tower: Tower,
    rows: Iterable[TokenSequence],
    *,
    vectors: Mapping[str, Tensor] = _NO_VECTORS,
    clip_skip: int = 0,
    final_norm: bool = True,
    cache: Cache | None = None,
    fingerprint: str | None = None,
) -> dict[TokenSequence, States]:
    """Return the states of every different row, in the order of first appearance.

    rows: of any lengths.   vectors: (D,) each, by the digests that rows name.   clip_skip, final_norm: as for
    `Tower.encode_rows`.   cache: looked up and filled.   fingerprint: the tower's as it is now; None asks it.
    Returns states on the device where the tower computes. Raises what `Tower.encode_rows` raises.
    """
    wanted = list(dict.fromkeys(rows))
    prefix = _key_prefix(tower, clip_skip, final_norm, fingerprint) if cache is not None else ""
    known: dict[TokenSequence, States] = {}
    if cache is not None:
        device = tower.device
        for row in wanted:
            states = cache.get(_key(prefix, row))
            if states is not None:
                known[row] = _on(states, device)
    for same_length in _by_length([row for row in wanted if row not in known]):
        out = tower.encode_rows(same_length, vectors=vectors, clip_skip=clip_skip, final_norm=final_norm)
        for row, states in zip(same_length, _states_of_rows(out), strict=True):
            known[row] = states
            if cache is not None:
                cache.put(_key(prefix, row), states)
    return {row: known[row] for row in wanted}


def _key_prefix(tower: Tower, clip_skip: int, final_norm: bool, fingerprint: str | None) -> str:
    return f"{fingerprint or tower.fingerprint()} {clip_skip} {final_norm} {tower.dtype}"


def _key(prefix: str, row: TokenSequence) -> str:
    """Everything that a row's states depend on, as a name for a file."""
    return hashlib.sha256(f"{prefix}\n{row.ids}\n{row.masked}\n{row.vectors}".encode()).hexdigest()


def _on(states: States, device: torch.device) -> States:
    """States on the tower's device: those from a file are on the CPU, and a tower may have moved since."""
    if states.hidden.device == device:
        return states
    moved = {name: tensor.to(device) for name, tensor in states.tensors.items()}
    return States(hidden=moved["hidden"], pooled=moved.get("pooled"), projected=moved.get("projected"))


def _by_length(rows: Sequence[TokenSequence]) -> list[list[TokenSequence]]:
    groups: dict[int, list[TokenSequence]] = {}
    for row in rows:
        groups.setdefault(len(row.ids), []).append(row)
    return list(groups.values())


def _states_of_rows(out: TextStates) -> list[States]:
    return [
        States(
            hidden=hidden,
            pooled=None if out.pooled is None else out.pooled[number],
            projected=None if out.projected is None else out.projected[number],
        )
        for number, hidden in enumerate(out.hidden)
    ]
