"""The moving average of the weights: what is evaluated and written in place of the last step's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """An exponential moving average of all that trains in a model, in the dtype of the weights.

    What batch normalisation has measured is averaged with it: it belongs to weights that move.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """decay: the share of the average that a step keeps, below 1; smaller at first, as 1/10, 2/11, 3/12, …"""
        self._own: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._own.update(_measured(model))
        self._values = {name: p.detach().clone() for name, p in self._own.items()}
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        keep = min(self._decay, step / (step + 9))
        torch._foreach_lerp_(list(self._values.values()), [p.detach() for p in self._own.values()], 1 - keep)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While open, the model's weights are the averages; then they are what they were, bit for bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, parameter in self._own.items():
            parameter.data, self._values[name] = self._values[name], parameter.data

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._values)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over averages. Raises KeyError or RuntimeError where they are of other weights."""
        for name, value in self._values.items():
            value.copy_(state[name])


def _measured(model: nn.Module) -> dict[str, Tensor]:
    """Return the running means and variances of layers that train, by name."""
    return {
        f"{prefix}.{name}": buffer
        for prefix, layer in model.named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and any(p.requires_grad for p in layer.parameters())
        for name, buffer in layer.named_buffers(recurse=False)
        if buffer.is_floating_point()
    }
