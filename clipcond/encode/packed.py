"""A causal text encoder over the nodes of a tree of rows: every different beginning is computed once.

Linear layers, norms and MLPs, which are nearly all of the work, see the M nodes and no padding. Attention gathers the
queries of each row's own tail and the keys and values of the whole row, rows of similar tails together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from clipcond.encode.packed_tree import Tree

GRAIN = 16  # positions: tails that begin within so many of each other are attended to together


class PackedLayer(Protocol):
    """One layer in the two pieces around its attention."""

    heads: int
    scale: float

    def before(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(M, D) queries, keys and values of the (M, D) states x."""

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        """(M, D) the layer's output for its input x and what its heads attended to."""


class PackedStack(Protocol):
    """An encoder in the pieces that a packed pass needs."""

    layers: Sequence[PackedLayer]
    token_embedding: nn.Module

    def positions(self, at: Tensor) -> Tensor:
        """(M, D) what is added to token embeddings at these (M,) positions."""

    def cast(self, x: Tensor) -> Tensor:
        """Embeddings in the dtype of the layers."""

    def norm(self, states: Tensor) -> Tensor: ...

    def open(self) -> AbstractContextManager[torch.device]:
        """While open, the weights are on the device that it gives, as they are in a forward of the model."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Rows whose tails begin and end at about the same positions."""

    queries: Tensor  # (n, Q) nodes
    keys: Tensor  # (n, K) nodes, from position 0 on
    mask: Tensor | None  # (n or 1, 1, Q, K) bool; None: query i sees keys 0 to i
    places: Tensor  # (m,) those of the n·Q queries that are the first of their node
    nodes: Tensor  # (m,) these nodes


def groups(tree: Tree, seen: Tensor | None, device: torch.device) -> tuple[Group, ...]:
    """How the rows of a tree attend: each node is the query of one group.

    seen: (N, L) bool on the CPU, in the tree's order, False at positions that nothing attends to.
    """
    length = tree.nodes.shape[1]
    starts = tree.starts // GRAIN * GRAIN
    ends = torch.clamp(-(-tree.ends // GRAIN) * GRAIN, max=length)
    spans = torch.stack([starts, ends], dim=1)
    spans = spans[tree.starts < tree.ends]  # a row that is there twice asks nothing
    found = []
    for start, end in torch.unique(spans, dim=0).tolist():
        rows = torch.nonzero((starts == start) & (ends == end) & (tree.starts < tree.ends)).flatten()
        found.append(_group(tree, rows, start, end, seen, device))
    return tuple(found)


def _group(tree: Tree, rows: Tensor, start: int, end: int, seen: Tensor | None, device: torch.device) -> Group:
    nodes = tree.nodes[rows]
    queries, positions = nodes[:, start:end], torch.arange(end)
    own = (positions >= tree.starts[rows, None]) & (positions < tree.ends[rows, None])
    places = torch.nonzero(own[:, start:].flatten()).flatten()
    mask = None
    if start or seen is not None:
        mask = (positions[None, :] <= positions[start:, None])[None, None]
        if seen is not None and not bool(seen[rows].all()):
            mask = mask & seen[rows, None, None, :end]
    return Group(
        queries=queries.to(device),
        keys=nodes[:, :end].to(device),
        mask=None if mask is None else mask.to(device),
        places=places.to(device),
        nodes=queries.flatten()[places].to(device),
    )


def attend(groups: Sequence[Group], q: Tensor, k: Tensor, v: Tensor, layer: PackedLayer) -> Tensor:
    """(M, D) what each node attends to, of (M, D) queries, keys and values."""
    out = torch.empty_like(q)
    q, k, v = (states.view(len(states), layer.heads, -1) for states in (q, k, v))
    for group in groups:
        dense = scaled_dot_product_attention(
            q[group.queries].transpose(1, 2),
            k[group.keys].transpose(1, 2),
            v[group.keys].transpose(1, 2),
            attn_mask=group.mask,
            is_causal=group.mask is None,
            scale=layer.scale,
        )
        out[group.nodes] = dense.transpose(1, 2).flatten(2).flatten(0, 1)[group.places]
    return out


def layer_and_last(stack: PackedStack, x: Tensor, groups: Sequence[Group], skip: int) -> tuple[Tensor | None, Tensor]:
    """(M, D) raw output `skip` layers before the end, or None for -1, and (M, D) the last one after its norm.

    x: (M, D) embeddings of the nodes.
    """
    kept = x if skip == len(stack.layers) else None
    for number, layer in enumerate(stack.layers, start=1):
        x = layer.after(x, attend(groups, *layer.before(x), layer))
        if number == len(stack.layers) - skip:
            kept = x
    return kept, stack.norm(x)


def parts(tree: Tree, max_tokens: int) -> Iterator[Tree]:
    """A tree in pieces of at most `max_tokens` nodes and four times as many places, one row at the least."""
    length, first, nodes = tree.nodes.shape[1], 0, 0
    most_rows = max(1, 4 * max_tokens // length)
    own = (tree.ends - tree.starts).tolist()
    for number, end in enumerate(tree.ends.tolist()):
        if number > first and (nodes + own[number] > max_tokens or number - first >= most_rows):
            yield tree.part(first, number)
            first, nodes = number, 0
        nodes += own[number] if number > first else end
    yield tree.part(first, len(own))
