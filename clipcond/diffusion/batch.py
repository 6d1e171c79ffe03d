"""All prompts of a call through all encoders of a pipeline: one pass each, then weights, parts and equal lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from clipcond.condition import parts as joining
from clipcond.condition.cache import Cache
from clipcond.condition.encoder_input import Reading, empty_row, read
from clipcond.condition.families import T5, assemble, layer
from clipcond.condition.lengths import common_length, mask_to, pad_with, repeat_to
from clipcond.condition.passes import EncoderPass, alike, weigh_together
from clipcond.condition.pooled import pool
from clipcond.diffusion.pipeline_view import PipelineView, bare
from clipcond.diffusion.requests import Encoded, Options, Read, Request
from clipcond.encode.inversion import Inversions
from clipcond.encode.rows import TokenSequence
from clipcond.errors import ConfigError
from clipcond.prompt.findings import Finding
from clipcond.prompt.plan import PromptPlan

MOST_REPEATS = 32  # times the longest row: beyond, equal lengths by repetition are not what anybody meant


class Batch:
    """Requests of one call. `encode` runs the passes; `stack` makes tensors of one length."""

    def __init__(
        self,
        loading: PipelineView,
        requests: Sequence[Request],
        options: Options,
        *,
        inversions: Inversions,
        cache: Cache | None,
    ) -> None:
        self._loading, self._options, self._cache = loading, options, cache
        self.device = loading.device  # asked once: offload hooks are looked for in every module
        self._passes = {
            name: EncoderPass(loaded.tower, method=options.method, comma=loaded.comma, vectors=inversions.vectors(name))
            for name, loaded in loading.encoders.items()
        }
        self._named: dict[str, dict[str, Sequence[int | str]]] = {
            name: _named(inversions, name, loaded.added()) for name, loaded in loading.encoders.items()
        }
        known: dict[tuple[int, ...], dict[str, Read]] = {}
        self._reads = []
        for request in requests:
            key = tuple(id(request.plans[name]) for name in loading.encoders)
            if key not in known:
                known[key] = {name: self._read(name, request.plans[name]) for name in loading.encoders}
            self._reads.append(known[key])
        self._empties: dict[tuple[str, int], TokenSequence] = {}

    def _read(self, name: str, plan: PromptPlan) -> Read:
        self._loading.encoders[name].check(plan.encoders[name])
        reading = read(plan.encoders[name], inversions=self._named[name])
        return Read(reading=reading, parts=plan.parts or joining.WHOLE, plan=plan)

    def encode(self) -> list[Encoded]:
        """Every different row once through its encoder, then the states of each request, in order."""
        for reads in {id(each): each for each in self._reads}.values():
            self._collect(reads)
        if self._options.lengths == "pad_empty":
            self._collect_padding()
        for name, each in self._passes.items():
            skip, norm = layer(self._loading.shape, name, self._options.clip_skip)
            each.run(clip_skip=skip, final_norm=norm, cache=self._cache)
        done: dict[int, Encoded] = {}
        for reads in self._reads:
            if id(reads) not in done:
                done[id(reads)] = self._encoded(reads)
        return [done[id(reads)] for reads in self._reads]

    # rows

    def _empty(self, name: str, length: int) -> TokenSequence:
        """The empty prompt's row of a length, which is encoded along."""
        if (name, length) not in self._empties:
            loaded = self._loading.encoders[name]
            row = self._empties[name, length] = empty_row(loaded.pad_id, frame=loaded.frame(length), length=length)
            self._passes[name].add_empty(row)
        return self._empties[name, length]

    def _collect(self, reads: Mapping[str, Read]) -> None:
        shape = self._loading.shape
        for name, each in reads.items():
            counts = [len(piece.rows) for piece in each.pieces]
            wanted = joining.wants_empty(each.parts, counts)
            for piece in each.pieces:
                weighted = name == T5 or name in shape.beside
                wanted |= self._passes[name].add(piece, weighted=weighted).empty
            if wanted:
                self._empty(name, each.reading.weights.shape[1])
        beside = [reads[name] for name in shape.beside]
        if len({each.rows for each in beside}) > 1 or not _same_counts(beside):
            for name in shape.beside:
                self._empty(name, reads[name].reading.weights.shape[1])

    def _collect_padding(self) -> None:
        shape = self._loading.shape
        if len({reads[name].rows for reads in self._reads for name in shape.beside}) > 1:
            for name in shape.beside:
                self._empty(name, self._reads[0][name].reading.weights.shape[1])
        if T5 in self._loading.encoders and len(lengths := {_length(reads[T5]) for reads in self._reads}) > 1:
            self._empty(T5, max(lengths))

    # states

    def _encoded(self, reads: Mapping[str, Read]) -> Encoded:
        shape, near_zero = self._loading.shape, []
        pieces: dict[str, list[Tensor]] = {}
        groups = [list(shape.beside)] if self._jointly(reads) else [[name] for name in shape.beside]
        for group in [*groups, *([[T5]] if T5 in self._loading.encoders else [])]:
            pieces |= {name: [] for name in group}
            for number in range(len(reads[group[0]].parts)):
                readings = [reads[name].pieces[number] for name in group]
                hidden, failed = weigh_together(
                    [self._passes[name] for name in group],
                    readings,
                    method=self._options.method,
                    empties=[self._known_empty(name, reading) for name, reading in zip(group, readings, strict=True)],
                )
                for name, states in zip(group, hidden, strict=True):
                    pieces[name].append(states)
                spans = [readings[0].weighted[chunk] for chunk in failed]
                near_zero += [(reads[group[0]].plan, span) for span in spans if span is not None]
        beside = [pieces[name] for name in shape.beside]
        if len(beside) > 1 and len({len(each) for each in beside}) == 1:
            beside = self._side_by_side(beside)
        joined = [self._joined(name, reads[name], each) for name, each in zip(shape.beside, beside, strict=True)]
        return Encoded(
            beside=tuple(self._filled(joined)),
            behind=self._behind(reads, pieces),
            pooled=self._pooled(reads),
            near_zero=tuple(near_zero),
        )

    def _jointly(self, reads: Mapping[str, Read]) -> bool:
        """Whether the encoders that lie side by side are weighted as one: they must read the same weights."""
        each = [reads[name] for name in self._loading.shape.beside]
        return self._loading.shape.joint_mean and len({e.parts for e in each}) == 1 and alike([e.reading for e in each])

    def _known_empty(self, name: str, reading: Reading) -> TokenSequence:
        """The empty row of a reading's length, whether it was encoded or is not needed."""
        row = self._empties.get((name, reading.weights.shape[1]))
        return reading.rows[0] if row is None else row

    def _empty_states(self, name: str, length: int) -> Tensor | None:
        row = self._empties.get((name, length))
        return None if row is None else self._passes[name].empty(row)

    def _joined(self, name: str, read: Read, pieces: Sequence[Tensor]) -> Tensor:
        return joining.join(pieces, read.parts, self._empty_states(name, read.reading.weights.shape[1]))

    def _side_by_side(self, beside: Sequence[list[Tensor]]) -> list[list[Tensor]]:
        """Each part with as many chunks in every encoder, empty ones where it has fewer."""
        filled: list[list[Tensor]] = [[] for _ in beside]
        for part in zip(*beside, strict=True):
            rows = self._filled([states.flatten(0, 1) for states in part])
            for states, row, own in zip(part, rows, filled, strict=True):
                own.append(row.reshape(-1, states.shape[1], states.shape[2]))
        return filled

    def _filled(self, beside: Sequence[Tensor], length: int = 0) -> list[Tensor]:
        """States (T, Dᵢ) side by side, brought to one length with empty chunks."""
        length = max(length, *[len(each) for each in beside]) if beside else 0
        filled = []
        for name, states in zip(self._loading.shape.beside, beside, strict=True):
            if len(states) < length:
                empty = self._empty_states(name, self._reads[0][name].reading.weights.shape[1])
                assert empty is not None  # collected with the rows
                states = pad_with(states[None], empty.to(states), length)[0]
            filled.append(states)
        return filled

    def _behind(self, reads: Mapping[str, Read], pieces: Mapping[str, list[Tensor]]) -> Tensor | None:
        if not self._loading.shape.behind:
            return None
        if T5 in pieces:
            states = self._joined(T5, reads[T5], pieces[T5])
            return states.to(self._loading.encoders[T5].module.dtype)
        zeros: Tensor = torch.zeros(self._options.positions, self._loading.width or 0, dtype=self._loading.dtype)
        return zeros

    def _pooled(self, reads: Mapping[str, Read]) -> Tensor | None:
        shape = self._loading.shape
        if not shape.pooled:
            return None
        vectors = []
        for name in shape.pooled:
            each, passed = reads[name], self._passes[name]
            if each.parts[0].how in ("concatenate", "noise"):
                vector = pool(passed.pooled(each.reading, shape.pooled_from), each.reading.counts, self._options.pooled)
            else:  # a blend of prompts is pooled as the blend of their vectors
                own = [pool(passed.pooled(p, shape.pooled_from), p.counts, self._options.pooled) for p in each.pieces]
                vector = joining.mix(own, each.parts)
            vectors.append(vector)
        return torch.cat([vector.to(self.device) for vector in vectors], dim=-1)

    # lengths

    def stack(self, encoded: Sequence[Encoded]) -> tuple[Tensor, Tensor | None]:
        """States (B, T, D) of requests, of one length T as `lengths` says, and for `mask` the (B, T) bool mask."""
        device, option = self.device, self._options.lengths
        if option == "pad_empty":
            encoded = self._padded(encoded)
        rows = [
            assemble(
                [states.to(device) for states in each.beside],
                None if each.behind is None else each.behind.to(device),
                width=self._loading.width,
                dtype=self._loading.dtype,
            )[None]
            for each in encoded
        ]
        if option == "mask":
            masked = [mask_to(states, max(states.shape[1] for states in rows)) for states in rows]
            return torch.cat([states for states, _ in masked]), torch.cat([mask for _, mask in masked])
        length = _met([states.shape[1] for states in rows])
        return torch.cat([repeat_to(states, length) for states in rows]), None

    def _padded(self, encoded: Sequence[Encoded]) -> list[Encoded]:
        """Requests with as many empty chunks as the longest needs, and T5's rows with the end of an empty prompt."""
        beside = max((len(states) for each in encoded for states in each.beside), default=0)
        behind = max((len(each.behind) for each in encoded if each.behind is not None), default=0)
        padded = []
        for each in encoded:
            tail = each.behind
            if tail is not None and len(tail) < behind:
                empty = self._empty_states(T5, behind)
                assert empty is not None  # collected with the rows
                tail = torch.cat([tail, empty[len(tail) :].to(tail)])
            padded.append(Encoded(beside=tuple(self._filled(each.beside, beside)), behind=tail, pooled=each.pooled))
        return padded

    # what is odd

    def unused_weights(self, request: int) -> list[tuple[PromptPlan, Finding]]:
        """Weights that change nothing: of a text that is only pooled, and of a weighting that has none."""
        reads, shape = self._reads[request], self._loading.shape
        used = {
            id(each.plan)
            for name, each in reads.items()
            if self._options.method.name != "none" and (name == T5 or name in shape.beside)
        }
        told: dict[tuple[int, int, int], tuple[PromptPlan, Finding]] = {}
        for name, each in reads.items():
            reason = (
                "the weighting is none"
                if self._options.method.name == "none"
                else f"{name} gives no token states in this family, only a pooled vector"
            )
            for span in each.reading.weighted:
                if span is not None and id(each.plan) not in used:
                    finding = Finding("weights-unused", f"these weights change nothing: {reason}", *span)
                    told.setdefault((id(each.plan), *span), (each.plan, finding))
        return list(told.values())


def _named(
    inversions: Inversions, encoder: str, added: Mapping[str, tuple[int, ...]]
) -> dict[str, Sequence[int | str]]:
    """What stands for the vectors of each textual inversion: ids of the pipeline's own, digests of the others."""
    named: dict[str, Sequence[int | str]] = {bare(token): ids for token, ids in added.items()}
    named |= {name: each.digests[encoder] for name, each in inversions.items() if encoder in each.digests}
    return {**named, **added}


def _met(lengths: Sequence[int]) -> int:
    """Where lengths meet by repetition. Raises ConfigError where that is too far off to be meant."""
    length = common_length(lengths)
    if length > MOST_REPEATS * max(lengths):
        several = ", ".join(str(each) for each in sorted(set(lengths)))
        raise ConfigError(
            f"rows of {several} tokens meet at {length} by repetition; condition them in calls of their own, "
            "or say lengths='pad_empty'"
        )
    return length


def _same_counts(beside: Sequence[Read]) -> bool:
    """Whether each part has as many chunks in every encoder."""
    return len({tuple(len(piece.rows) for piece in each.pieces) for each in beside}) <= 1


def _length(read: Read) -> int:
    return read.rows * int(read.reading.weights.shape[1])
