"""Attention between the nodes of a tree of rows: each one to its own beginning, and to nothing that is masked.

In groups: the queries of each row's tail and the keys and values of the whole row are gathered, rows of similar tails
together. In blocks, on CUDA with xformers where no position is masked: tails and rows end to end, without any padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from clipcond.encode.packed.prefix_tree import PrefixTree

GROUP_STEP = 16  # positions: tails that begin within so many of each other are attended to together


class Attention(Protocol):
    """(M, H, D/H) queries, keys and values of the nodes to (M, H, D/H) what each attends to."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor: ...


def attention_of(
    tree: PrefixTree, attention_mask: Tensor | None, device: torch.device, dtype: torch.dtype, head_width: int
) -> Attention:
    """The attention of a tree's nodes, in blocks where that is possible.

    attention_mask: (N, L) bool on the CPU, in the tree's order, False at positions that nothing attends to.   dtype: of queries,
    keys and values, which have `head_width` numbers a head.
    """
    if attention_mask is None:
        library = xformers_ops(device, dtype, head_width)
        if library is not None:
            return BlockDiagonalAttention(tree, device, library)
    return GroupedAttention(query_groups(tree, attention_mask, device))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QueryGroup:
    """Rows whose tails begin and end at about the same positions."""

    queries: Tensor  # (n, Q) nodes
    keys: Tensor  # (n, K) nodes, from position 0 on
    mask: Tensor | None  # (n or 1, 1, Q, K) bool; None: query i sees keys 0 to i
    places: Tensor  # (m,) those of the n·Q queries that are the first of their node
    nodes: Tensor  # (m,) these nodes


def query_groups(tree: PrefixTree, attention_mask: Tensor | None, device: torch.device) -> tuple[QueryGroup, ...]:
    """Return the groups in which the rows of a tree attend: each node is the query of one.

    attention_mask: (N, L) bool on the CPU, in the tree's order, False at positions that nothing attends to.
    """
    length = tree.nodes.shape[1]
    starts = tree.starts // GROUP_STEP * GROUP_STEP
    ends = torch.clamp(-(-tree.ends // GROUP_STEP) * GROUP_STEP, max=length)
    spans = torch.stack([starts, ends], dim=1)
    spans = spans[tree.starts < tree.ends]  # a row that is there twice asks nothing
    found = []
    for start, end in torch.unique(spans, dim=0).tolist():
        rows = torch.nonzero((starts == start) & (ends == end) & (tree.starts < tree.ends)).flatten()
        found.append(_group(tree, rows, start, end, attention_mask, device))
    return tuple(found)


def _group(
    tree: PrefixTree, rows: Tensor, start: int, end: int, attention_mask: Tensor | None, device: torch.device
) -> QueryGroup:
    nodes = tree.nodes[rows]
    queries, positions = nodes[:, start:end], torch.arange(end)
    own = (positions >= tree.starts[rows, None]) & (positions < tree.ends[rows, None])
    places = torch.nonzero(own[:, start:].flatten()).flatten()
    mask = None
    if start or attention_mask is not None:
        mask = (positions[None, :] <= positions[start:, None])[None, None]
        if attention_mask is not None and not bool(attention_mask[rows].all()):
            mask = mask & attention_mask[rows, None, None, :end]
    return QueryGroup(
        queries=queries.to(device),
        keys=nodes[:, :end].to(device),
        mask=None if mask is None else mask.to(device),
        places=places.to(device),
        nodes=queries.flatten()[places].to(device),
    )


class GroupedAttention:
    """Attention group by group, padded within each."""

    def __init__(self, groups: Sequence[QueryGroup]) -> None:
        self._groups = groups

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        for group in self._groups:
            dense = scaled_dot_product_attention(
                q[group.queries].transpose(1, 2),
                k[group.keys].transpose(1, 2),
                v[group.keys].transpose(1, 2),
                attn_mask=group.mask,
                is_causal=group.mask is None,
                scale=scale,
            )
            out[group.nodes] = dense.transpose(1, 2).flatten(0, 1)[group.places]
        return out


class BlockDiagonalAttention:
    """Attention of all rows at once: nodes are numbered row by row, so a row's own are a block of the queries."""

    def __init__(self, tree: PrefixTree, device: torch.device, library: Any) -> None:
        asking = tree.starts < tree.ends
        starts, ends, nodes = tree.starts[asking], tree.ends[asking], tree.nodes[asking]
        keys = nodes[torch.arange(nodes.shape[1]) < ends[:, None]]
        self._attend = library.memory_efficient_attention
        biases = library.fmha.attn_bias
        if bool(starts.any()):
            kind = biases.BlockDiagonalCausalFromBottomRightMask
            self._keys: Tensor | None = keys.to(device)
            self._bias = kind.from_seqlens((ends - starts).tolist(), ends.tolist(), device=device)
        else:
            self._keys = None
            self._bias = biases.BlockDiagonalCausalMask.from_seqlens(ends.tolist(), device=device)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        if self._keys is not None:
            k, v = k[self._keys], v[self._keys]
        return self._attend(q[None], k[None], v[None], attn_bias=self._bias, scale=scale)[0]  # type: ignore[no-any-return]


@lru_cache(maxsize=16)
def xformers_ops(device: torch.device, dtype: torch.dtype, head_width: int) -> Any:
    """`xformers.ops` where it is installed and has a kernel for this GPU, dtype and width; None elsewhere."""
    if device.type != "cuda" or find_spec("xformers") is None:
        return None
    try:
        library = import_module("xformers.ops")
        sample = torch.zeros(1, 2, 1, head_width, device=device, dtype=dtype)
        bias = library.fmha.attn_bias.BlockDiagonalCausalMask.from_seqlens([1, 1], device=device)
        library.memory_efficient_attention(sample, sample, sample, attn_bias=bias)
    except (ImportError, AttributeError, NotImplementedError, RuntimeError, ValueError):
        return None
    return library
