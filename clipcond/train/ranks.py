"""The processes of a run that share its batches, and what they compute together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from clipcond.errors import ConfigError
from clipcond.train.shards import is_share

_BUCKET = 1 << 24  # elements that are sent at once
_PATIENCE = timedelta(hours=4)  # the first rank evaluates while the others wait; a dead one is noticed at once


@dataclass(frozen=True, slots=True)
class Ranks:
    """Process `rank` of `count`. Alone, nothing is sent and every method returns what it was given."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """True in the process that logs and writes files."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over all ranks of a tensor of the same shape on each; no gradient."""
        if self.count > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """True if it is so in any of the ranks."""
        return flag if self.count == 1 else bool(self.sum(torch.tensor(float(flag))) > 0)

    def wait(self) -> None:
        """Return when all ranks are here."""
        if self.count > 1:
            dist.barrier()

    def log_sum_exp(self, value: Tensor) -> Tensor:
        """Return log Σ exp over all ranks, element by element; no gradient."""
        return value if self.count == 1 else torch.logsumexp(self.stack(value), dim=0)

    def stack(self, value: Tensor) -> Tensor:
        """Return a tensor of each rank, all of one shape, along a new first axis; no gradient."""
        if self.count == 1:
            return value[None]
        parts = [torch.empty_like(value) for _ in range(self.count)]
        dist.all_gather(parts, value.contiguous())
        return torch.stack(parts)

    def gather(self, rows: Tensor) -> Tensor:
        """Join (b, …) rows of all ranks in their order, b of each its own; gradients of all ranks sum up."""
        if self.count == 1:
            return rows
        joined: Tensor = _Gather.apply(rows, self)  # type: ignore[no-untyped-call]
        return joined

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Put the sum over all ranks in the place of every gradient: dense ones in buckets, sparse ones by their rows.

        Those of parameters that are divided among the ranks have been summed already.
        """
        if self.count == 1:
            return
        parameters = [parameter for parameter in parameters if not is_share(parameter)]
        known = self.sum(torch.tensor([float(p.grad is not None) for p in parameters]))
        used = [parameter for parameter, count in zip(parameters, known, strict=True) if count]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for parameter in used:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = self._sparse_sum(parameter.grad.coalesce())
        for bucket in _buckets([p.grad for p in used if p.grad is not None and not p.grad.is_sparse]):
            joined = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(joined)
            for gradient, part in zip(bucket, torch.split(joined, [g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def _sparse_sum(self, gradient: Tensor) -> Tensor:
        rows, values = self.gather(gradient.indices()[0]), self.gather(gradient.values())
        total = torch.sparse_coo_tensor(rows[None], values, gradient.shape, check_invariants=False)
        return total.coalesce()


ALONE = Ranks()


@contextmanager
def launched_ranks() -> Iterator[Ranks]:
    """Join the processes that `torchrun` started, for a while; alone without it. Raises ConfigError where that fails."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or dist.is_initialized():  # a caller's own group is the caller's to end
        yield Ranks(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else ALONE
        return
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"WORLD_SIZE is {count}, but the processes do not meet: {error}; start them with torchrun"
        ) from error
    try:
        yield Ranks(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Group gradients of one dtype, in their order, to what is sent at once."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        full = sum(each.numel() for each in bucket) + gradient.numel() > _BUCKET
        if bucket and (full or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        ctx.lengths = [int(each) for each in ranks.stack(torch.tensor(len(rows)))]
        padded = rows.new_zeros((max(1, *ctx.lengths), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = ranks.stack(padded)
        return torch.cat([part[:length] for part, length in zip(parts, ctx.lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        own = ctx.ranks.sum(gradient.contiguous()).split(ctx.lengths)[ctx.ranks.rank]
        return own, None
