"""AdamW with decay on weight matrices only, and a sparse Adam for the token table; the learning rate of a step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.train.config import TrainConfig


class Optimizer:
    """The optimizer of every parameter with `requires_grad`.

    The token table has 49,408 rows and a batch touches a few hundred of them, so where it trains its gradients are
    sparse and a lazy Adam updates those rows alone (the moments of the others stand still); it takes no decay.
    """

    def __init__(self, model: Any, config: TrainConfig) -> None:
        table = model.token_embedding.weight
        model.token_embedding.sparse = table.requires_grad
        self.dense = [p for p in model.parameters() if p.requires_grad and p is not table]
        self.sparse = [table] if table.requires_grad else []
        groups = [
            {"params": params, "weight_decay": decay}
            for params, decay in zip(split_by_decay(model), (config.weight_decay, 0.0), strict=True)
            if params
        ]
        self.parts: list[torch.optim.Optimizer] = []
        if groups:
            self.parts.append(
                torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=1e-8, fused=True)
            )
        if self.sparse:
            self.parts.append(
                torch.optim.SparseAdam(self.sparse, lr=config.learning_rate, betas=config.betas, eps=1e-8)
            )

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self, learning_rate: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def clip(self, most: float) -> Tensor:
        """Scale all gradients together so that their norm is at most `most`; return the norm before."""
        for parameter in self.sparse:
            if parameter.grad is not None:
                parameter.grad = parameter.grad.coalesce()
        return clip_gradients([p.grad for p in (*self.dense, *self.sparse) if p.grad is not None], most)

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def split_by_decay(model: Any) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return what trains, without the token table: matrices, which decay; norms, biases, positions and temperature."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter is not model.token_embedding.weight:
            plain = parameter.ndim < 2 or "embedding" in name
            (rest if plain else matrices).append(parameter)
    return matrices, rest


@torch.no_grad()
def clip_gradients(gradients: Iterable[Tensor], most: float) -> Tensor:
    """Scale dense and coalesced sparse gradients in place to a joint norm of at most `most`; return the norm before."""
    values = [g.values() if g.is_sparse else g for g in gradients]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(values)))
    torch._foreach_mul_(values, torch.clamp(most / (norm + 1e-6), max=1.0))
    return norm


def learning_rate_at(step: int, total: int, peak: float, warmup: int) -> float:
    """Return the learning rate of a step counted from 0: linear up to `peak`, then a half cosine to 0 at the end."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
