"""Towers divided among processes: each keeps its share of every block, and has a block whole while it computes (FSDP2).

Embeddings, final norms and projections stay whole in every process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from clipcond.errors import ConfigError
from clipcond.train.blocks import training_blocks


def divide_blocks(model: Any, device: torch.device, count: int) -> None:
    """Divide the blocks of the towers that train among `count` processes, all of which call this.

    Gradients then sum up over them in the backward pass. Raises ConfigError for one process, for towers without blocks, and
    for a torch that cannot.
    """
    if count < 2:
        raise ConfigError(
            "fsdp divides weights among processes, and this run has one: start it with torchrun, or leave it out"
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise ConfigError(
            f"fsdp needs torch 2.8 or newer, and this is {torch.__version__}; update it, or leave fsdp out"
        )
    blocks = list(training_blocks(model))
    if not blocks:
        raise ConfigError("fsdp divides the blocks of towers that train, and there are none; leave it out")
    mesh = init_device_mesh(device.type, (count,))
    for block in blocks:
        divided: Any = fully_shard(block, mesh=mesh, reshard_after_forward=True)
        divided.set_gradient_divide_factor(1.0)
        divided.set_force_sum_reduction_for_comms(True)  # gloo has no other


def is_share(tensor: Tensor) -> bool:
    """True for a tensor of which this process holds a part."""
    return hasattr(tensor, "full_tensor")


def own_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, in the same memory."""
    part: Any = tensor
    local: Tensor = part.to_local() if is_share(tensor) else part
    return local


def whole(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Put the tensors together that are divided, one after the other; all processes call this.

    keep: return them, on the CPU where they were divided; otherwise nothing is kept.
    """
    found = {}
    part: Any
    for name, part in tensors.items():
        full: Tensor = part.full_tensor() if is_share(part) else part
        if keep:
            found[name] = full.cpu() if is_share(part) else full
    return found


def divided_like(value: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor divided as another is, itself where that is whole; all processes call this."""
    if not is_share(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    place: Any = like
    return distribute_tensor(value.to(like.device), place.device_mesh, place.placements)


def joint_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the norm of gradients of which some are shares: those count over all processes, the others once."""
    shares = [own_part(each) for each in gradients if is_share(each)]
    rest = [each for each in gradients if not is_share(each)]
    squares = torch.stack(torch._foreach_norm(shares)).square().sum()
    dist.all_reduce(squares)
    if rest:
        squares = squares + torch.stack(torch._foreach_norm(rest)).square().sum()
    return squares.sqrt()
