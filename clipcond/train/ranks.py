"""The processes of a run that share its batches, and the sums that they make together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ranks:
    """Process `rank` of `count`. Alone, nothing is sent and every method returns what it was given."""

    rank: int = 0
    count: int = 1

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over all ranks of a tensor of the same shape on each; no gradient."""
        if self.count > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
        return value

    def log_sum_exp(self, value: Tensor) -> Tensor:
        """Return log Σ exp over all ranks, element by element; no gradient."""
        if self.count == 1:
            return value
        parts = [torch.empty_like(value) for _ in range(self.count)]
        dist.all_gather(parts, value.contiguous())
        return torch.logsumexp(torch.stack(parts), dim=0)

    def gather(self, rows: Tensor) -> Tensor:
        """Join (b, …) rows of all ranks in their order, b of each its own; gradients of all ranks sum up."""
        if self.count == 1:
            return rows
        joined: Tensor = _Gather.apply(rows, self)  # type: ignore[no-untyped-call]
        return joined

    def lengths(self, rows: Tensor) -> list[int]:
        """Return the number of rows that each rank holds."""
        counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(self.count)]
        dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
        return [int(each) for each in counts]


ALONE = Ranks()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks, ctx.lengths = ranks, ranks.lengths(rows)
        longest = max(ctx.lengths)
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in ctx.lengths]
        dist.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, ctx.lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        own: Tensor = ctx.ranks.sum(gradient.contiguous()).split(ctx.lengths)[ctx.ranks.rank]
        return own, None
