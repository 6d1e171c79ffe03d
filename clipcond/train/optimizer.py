"""AdamW with decay on weight matrices only, and a sparse Adam for the token table; the learning rate of a step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.train.config import TrainConfig
from clipcond.train.shards import divided_like, is_share, joint_norm, own_part, whole

_BELOW = (
    "token_embedding",
    "positional_embedding",
    "class_embedding",
    "conv1",
    "patch_dropout",
    "ln_pre",
)  # the blocks


class _Rows:
    """A lazy Adam of some rows of the token table: those that a batch touches; the moments of the others stand still."""

    def __init__(self, table: nn.Parameter, rows: Tensor, factor: float, config: TrainConfig) -> None:
        """rows: (V,) bool, those that train.   factor: of their learning rate to that of the run."""
        self._table, self._rows, self._factor = table, rows, factor
        self.adam = torch.optim.SparseAdam([table], lr=config.learning_rate, betas=config.betas, eps=1e-8)

    def own(self, gradient: Tensor) -> Tensor:
        """Return the part of a coalesced sparse gradient that belongs to these rows."""
        at = gradient.indices()[0]
        mine = self._rows[at]
        if bool(mine.all()):
            return gradient
        return torch.sparse_coo_tensor(
            at[mine][None], gradient.values()[mine], gradient.shape, is_coalesced=True, check_invariants=False
        )

    def step(self, learning_rate: float, gradient: Tensor) -> None:
        """Update the rows by a coalesced gradient of the table, of which rows of others are left out."""
        self.adam.param_groups[0]["lr"] = learning_rate * self._factor
        self._table.grad = self.own(gradient)
        self.adam.step()  # type: ignore[no-untyped-call]


class Optimizer:
    """The optimizer of every parameter with `requires_grad`.

    The token table has 49,408 rows and a batch touches a few hundred of them, so where it trains its gradients are
    sparse and a lazy Adam updates those rows alone; it takes no decay. Rows that are zero, words that no training has
    ever reached, have a learning rate of their own where `unseen_rate` gives one, and train even in a frozen tower.
    """

    def __init__(self, model: Any, config: TrainConfig) -> None:
        table = model.token_embedding.weight
        model.token_embedding.sparse = table.requires_grad
        self.dense = [p for p in model.parameters() if p.requires_grad and p is not table]
        self._table = table
        self._rows = _row_groups(model, config) if table.requires_grad else []
        groups = _groups(model, config)
        self._dense: list[torch.optim.Optimizer] = []
        if groups:
            self._dense.append(
                torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=1e-8, fused=True)
            )

    @property
    def parts(self) -> list[torch.optim.Optimizer]:
        """All optimizers, in the order of `state_dict`."""
        return [*self._dense, *(rows.adam for rows in self._rows)]

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self, learning_rate: float) -> None:
        for part in self._dense:
            for group in part.param_groups:
                group["lr"] = learning_rate * group.get("factor", 1.0)
            part.step()
        gradient = self._table.grad
        if gradient is not None:
            gradient = gradient.coalesce()
            for rows in self._rows:
                rows.step(learning_rate, gradient)

    def clip(self, most: float) -> Tensor:
        """Scale all gradients together so that their norm is at most `most`; return the norm before."""
        gradients = [p.grad for p in self.dense if p.grad is not None]
        if self._rows and self._table.grad is not None:
            gradient = self._table.grad.coalesce()
            parts = [rows.own(gradient) for rows in self._rows]
            gradients += [part for part in parts if part.values().numel()]
            norm = clip_gradients(gradients, most)
            self._table.grad = sum(parts[1:], parts[0]).coalesce()
            return norm
        return clip_gradients(gradients, most)

    def state_dict(self, *, keep: bool = True) -> list[dict[str, Any]]:
        """Return the states of all parts, whole; all processes of a divided model call this.   keep: as `whole`."""
        found = []
        for part in self.parts:
            state = part.state_dict()
            moments = {number: whole(values, keep=keep) for number, values in state["state"].items()}
            found.append(state | {"state": moments})
        return found

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Take over what `state_dict` gave."""
        for part, state in zip(self.parts, states, strict=True):
            parameters = [p for group in part.param_groups for p in group["params"]]
            moments = {
                number: {name: _moment_of(parameters[number], value) for name, value in values.items()}
                for number, values in state["state"].items()
            }
            part.load_state_dict(state | {"state": moments})


def _moment_of(parameter: nn.Parameter, value: Any) -> Any:
    """Return a moment as its parameter is divided; a counter of steps as it is."""
    return divided_like(value, parameter) if getattr(value, "shape", None) == parameter.shape else value


def _row_groups(model: Any, config: TrainConfig) -> list[_Rows]:
    """Return the optimizers of the rows that train: of all, or of the seen and of the unseen apart."""
    table = model.token_embedding.weight
    factor = layer_factors(model, config.layer_decay)["token_embedding.weight"]
    if config.unseen_rate is None:
        return [_Rows(table, torch.ones(len(table), dtype=torch.bool, device=table.device), factor, config)]
    unseen = (table.detach() == 0).all(dim=1)
    groups = [_Rows(table, unseen, config.unseen_rate / config.learning_rate, config)]
    seen_too = "text" not in config.freeze and config.train_blocks is None
    return [_Rows(table, ~unseen, factor, config), *groups] if seen_too else groups


def _groups(model: Any, config: TrainConfig) -> list[dict[str, Any]]:
    """Return AdamW's groups: parameters of one decay and one factor of the learning rate, divided ones apart."""
    factors = layer_factors(model, config.layer_decay)
    by_parameter = {id(parameter): factors[name] for name, parameter in model.named_parameters()}
    found = []
    for params, decay in zip(split_by_decay(model), (config.weight_decay, 0.0), strict=True):
        for factor in sorted({by_parameter[id(p)] for p in params}, reverse=True):
            own = [p for p in params if by_parameter[id(p)] == factor]
            for alike in ([p for p in own if not is_share(p)], [p for p in own if is_share(p)]):
                if alike:
                    found.append({"params": alike, "weight_decay": decay, "factor": factor})
    return found


def layer_factors(model: Any, decay: float) -> dict[str, float]:
    """Return by name the factor of each parameter's learning rate: `decay` for each block that lies above it in its tower.

    Projections, final norms and the temperature have 1; embeddings lie below the first block.
    """
    towers = {"": model.transformer, "visual.": getattr(model.visual, "transformer", None)}
    factors = {}
    for name, _ in model.named_parameters():
        tower = "visual." if name.startswith("visual.") else ""
        blocks = len(getattr(towers[tower], "resblocks", ()))
        rest = name.removeprefix(tower)
        if rest.startswith("transformer.resblocks."):
            above = blocks - 1 - int(rest.split(".")[2])
        else:
            above = blocks if rest.startswith(_BELOW) else 0
        factors[name] = decay**above
    return factors


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
    """Scale dense and coalesced sparse gradients in place to a joint norm of at most `most`; return the norm before.

    Of gradients that are divided among processes, all of which call this, the whole counts.
    """
    values = [g.values() if g.is_sparse else g for g in gradients]
    if any(is_share(value) for value in values):
        norm = joint_norm(values)
    else:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(values)))
    torch._foreach_mul_([own_part(value) for value in values], torch.clamp(most / (norm + 1e-6), max=1.0))
    return norm


def learning_rate_at(step: int, total: int, peak: float, warmup: int) -> float:
    """Return the learning rate of a step counted from 0: linear up to `peak`, then a half cosine to 0 at the end."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
