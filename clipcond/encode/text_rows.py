"""Rows through a CLIP text tower: what begins alike is computed once, what stands alone goes the model's own way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from clipcond.encode.packed.attention import attention_of
from clipcond.encode.packed.prefix_tree import PrefixTree, prefix_tree
from clipcond.encode.packed.stack import PackedStack, layer_and_last, split_tree
from clipcond.encode.rows import TokenSequence, attention_mask, ids_of, override_embeddings
from clipcond.encode.text_backends import Backend
from clipcond.encode.tower import TextStates, joined

LEAST_SHARED = 0.1  # of all places: less is not worth leaving the pipeline's own bits for


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowPass:
    """One encoding of N rows of one length L."""

    backend: Backend
    device: torch.device
    rows: Sequence[TokenSequence]
    ends: Sequence[int]  # the position of each row's first EOS
    vectors: Mapping[str, Tensor]  # by digest
    skip: int  # layers from the end, -1 for the last one with its norm
    final_norm: bool

    def run(self, max_tokens: int) -> TextStates:
        """The states of all rows, in order.

        Where rows are masked, or much of them is alike, all go together in one packed pass, which costs the same per
        position as the model's forward. Otherwise they are handed to the model just as a pipeline does, so that their
        states are the pipeline's, bit for bit.
        """
        stack = self.backend.packing()
        whole = prefix_tree(self.rows) if stack is not None else None
        done = _Batches()
        if stack is not None and whole is not None and self._pays(whole):
            for part in split_tree(whole, max_tokens):
                done.add(part.order, partial(self._packed, stack, part))
            return done.in_order()
        size = max(1, max_tokens // len(self.rows[0].ids))
        for masked in (False, True):  # a mask for one row would be a mask for all
            alike = [at for at, row in enumerate(self.rows) if bool(row.masked) is masked]
            for first in range(0, len(alike), size):
                done.add(alike[first : first + size], self._own)
        return done.in_order()

    def _pays(self, whole: PrefixTree) -> bool:
        """True if the rows are worth a packed pass."""
        places = len(self.rows) * len(self.rows[0].ids)
        return any(row.masked for row in self.rows) or whole.size <= (1 - LEAST_SHARED) * places

    def pool(self, max_tokens: int) -> TextStates:
        """The pooled and projected vectors of all rows, each cut behind its EOS; hidden is (N, 0, D).

        Packed without padding; where the model allows only its own forward, in batches of similar lengths.
        """
        stack = self.backend.packing()
        done = _Batches()
        if stack is not None:
            for part in split_tree(prefix_tree(self.rows, [end + 1 for end in self.ends]), max_tokens):
                done.add(part.order, partial(self._packed, stack, part, hidden=False))
            return done.in_order()
        first = 0
        order = sorted(range(len(self.rows)), key=self.ends.__getitem__)
        for number, at in enumerate([*order[1:], -1], start=1):
            if at < 0 or (number + 1 - first) * (self.ends[at] + 1) > max_tokens:
                done.add(order[first:number], self._own_cut)
                first = number
        return done.in_order()

    def _own(self, numbers: Sequence[int]) -> TextStates:
        """The rows of these numbers through the model's own forward."""
        rows = [self.rows[number] for number in numbers]
        return self._forward(rows, [self.ends[number] for number in numbers])

    def _own_cut(self, numbers: Sequence[int]) -> TextStates:
        ends = [self.ends[number] for number in numbers]
        out = self._forward([_cut(self.rows[number], max(ends) + 1) for number in numbers], ends)
        return TextStates(hidden=out.hidden[:, :0], pooled=out.pooled, projected=out.projected)

    def _forward(self, rows: Sequence[TokenSequence], ends: Sequence[int]) -> TextStates:
        with override_embeddings(self.backend.table, rows, self.vectors):
            ids, mask = ids_of(rows, self.device), attention_mask(rows, self.device)
            return states(self.backend, ids, torch.tensor(ends), self.skip, self.final_norm, mask)

    def _packed(
        self, stack: PackedStack, part: PrefixTree, numbers: Sequence[int], *, hidden: bool = True
    ) -> TextStates:
        """The rows of these numbers, which are those of `part` in its order."""
        rows = [self.rows[number] for number in numbers]
        row, position = part.first_places
        with stack.open() as device:
            x = stack.token_embedding(ids_of(rows)[row, position].to(device))
            x = stack.cast(self._put_vectors(x, part, rows)) + stack.positions(position.to(device))
            attention = attention_of(part, attention_mask(rows), x.device, x.dtype, x.shape[1] // stack.layers[0].heads)
            kept, last = layer_and_last(stack, x, attention, self.skip)
            at_end = part.nodes[torch.arange(len(rows)), torch.tensor([self.ends[number] for number in numbers])]
            pooled = last[at_end.to(last.device)]
            wanted = last if kept is None else stack.norm(kept) if self.final_norm else kept
            nodes = part.nodes if hidden else part.nodes[:, :0]
            return TextStates(
                hidden=wanted[nodes.to(wanted.device)], pooled=pooled, projected=self.backend.project(pooled)
            )

    def _put_vectors(self, x: Tensor, part: PrefixTree, rows: Sequence[TokenSequence]) -> Tensor:
        """(M, D) token embeddings with the vectors in their places."""
        ends = part.ends.tolist()
        places = [(n, at, digest) for n, row in enumerate(rows) for at, digest in row.vectors if at < ends[n]]
        if places:
            nodes = torch.stack([part.nodes[n, at] for n, at, _ in places]).to(x.device)
            x = x.index_copy(0, nodes, torch.stack([self.vectors[digest] for *_, digest in places]).to(x))
        return x


def states(
    backend: Backend, ids: Tensor, ends: Tensor, skip: int, final_norm: bool, attention_mask: Tensor | None = None
) -> TextStates:
    """One batch through the model's own forward: (N, L) ids and mask where the tower computes, (N,) places of EOS."""
    raw, last = backend.layer_and_last(ids, skip, attention_mask)
    hidden = last if raw is None else backend.norm(raw) if final_norm else raw
    pooled = last[torch.arange(len(last), device=last.device), ends.to(last.device)]
    return TextStates(hidden=hidden, pooled=pooled, projected=backend.project(pooled))


class _Batches:
    """States of some rows after the other, by the rows' numbers."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._states: list[TextStates] = []

    def add(self, numbers: Sequence[int], compute: Callable[[Sequence[int]], TextStates]) -> None:
        self._numbers += numbers
        self._states.append(compute(numbers))

    def in_order(self) -> TextStates:
        whole = self._states[0] if len(self._states) == 1 else joined(self._states)
        if self._numbers == sorted(self._numbers):
            return whole
        places = torch.argsort(torch.tensor(self._numbers)).to(whole.hidden.device)
        return TextStates(
            hidden=whole.hidden[places],
            pooled=None if whole.pooled is None else whole.pooled[places],
            projected=None if whole.projected is None else whole.projected[places],
        )


def _cut(row: TokenSequence, length: int) -> TokenSequence:
    return TokenSequence(
        row.ids[:length],
        tuple(at for at in row.masked if at < length),
        tuple((at, digest) for at, digest in row.vectors if at < length),
    )
