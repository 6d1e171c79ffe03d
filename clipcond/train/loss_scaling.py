"""Training in float16: the loss is scaled up so that small gradients are not lost, and steps that overflow are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.errors import ConfigError


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ConfigError for float16 on a device that is not made for it."""
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"precision is 'fp16', which needs an NVIDIA or AMD GPU, and the device is {device}; bf16 works here"
        )


class LossScaling:
    """torch's GradScaler over all parameters of a run, whatever optimizers they have."""

    def __init__(self, parameters: Iterable[nn.Parameter], device: torch.device) -> None:
        self._scaler = torch.amp.GradScaler(device.type)
        self.param_groups = [{"params": list(parameters)}]  # the scaler looks for them where an optimizer has them
        self._update: Callable[[], None] = lambda: None

    @property
    def scale(self) -> float:
        """The factor of the loss."""
        return float(self._scaler.get_scale())

    def scaled(self, loss: Tensor) -> Tensor:
        """Return a loss times the scale, for its backward pass."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def take_step(self, update: Callable[[], None]) -> bool:
        """Take the scale out of the gradients and call `update`, unless one of them is not finite; then halve the scale.

        Returns whether it was called. Raises ConfigError where the scale has come below 1.
        """
        self._update = update
        optimizer: Any = self
        taken = bool(self._scaler.step(optimizer))
        self._scaler.update()
        if self.scale < 1:
            raise ConfigError("gradients overflow float16 at any scale; use bf16, or lower the learning rate")
        return taken

    def step(self) -> bool:
        """Update the weights, as the scaler asks an optimizer to."""
        self._update()
        return True

    def state_dict(self) -> dict[str, float]:
        return dict(self._scaler.state_dict())

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._scaler.load_state_dict(state)
