"""A causal text encoder over the nodes of a tree of rows: every different beginning is computed once.

Linear layers, norms and MLPs, which are nearly all of the work, see the M nodes and no padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from clipcond.encode.packed.attention import Attention
from clipcond.encode.packed.prefix_tree import PrefixTree


class PackedLayer(Protocol):
    """One layer in the two pieces around its attention."""

    heads: int
    scale: float

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(M, D) queries, keys and values of the (M, D) states x."""

    def output(self, x: Tensor, attended: Tensor) -> Tensor:
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


def layer_and_last(stack: PackedStack, x: Tensor, attention: Attention, skip: int) -> tuple[Tensor | None, Tensor]:
    """(M, D) raw output `skip` layers before the end, or None for -1, and (M, D) the last one after its norm.

    x: (M, D) embeddings of the nodes.   attention: how the nodes attend to each other.
    """
    kept = x if skip == len(stack.layers) else None
    for number, layer in enumerate(stack.layers, start=1):
        q, k, v = (states.view(len(x), layer.heads, -1) for states in layer.queries_keys_values(x))
        x = layer.output(x, attention(q, k, v, layer.scale).flatten(1))
        if number == len(stack.layers) - skip:
            kept = x
    return kept, stack.norm(x)


def split_tree(tree: PrefixTree, max_tokens: int) -> Iterator[PrefixTree]:
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
