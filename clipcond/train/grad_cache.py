"""Gradient caching: features of a large batch with the memory of a small one, and exactly its gradients.

A micro-batch at a time is encoded without a graph; the loss gives the gradient of all features; then each micro-batch is
encoded again, with the random numbers of the first time, and its part of that gradient goes back through the tower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class CachedFeatures:
    """The (B, P) features of a batch, without a graph of the tower."""

    def __init__(
        self, encode: Callable[[slice], Tensor], count: int, *, micro_batch: int, device: torch.device
    ) -> None:  # fmt: skip
        """encode: some rows of the batch to their (r, P) features, with a graph where gradients are enabled.

        count: B, at least 1.   micro_batch: rows at once.   device: whose random numbers the tower draws, beside the CPU's.
        """
        self._encode, self._device = encode, device
        self._parts = [slice(start, min(start + micro_batch, count)) for start in range(0, count, micro_batch)]
        self._random: list[_Random] = []
        encoded: list[Tensor] = []
        trains = False
        for part in self._parts:
            self._random.append(_Random(device))
            with torch.set_grad_enabled(not encoded):  # the first says whether anything trains
                features = encode(part)
            trains = trains or features.requires_grad
            encoded.append(features.detach())
        self.values = torch.cat(encoded).requires_grad_(trains)

    def backward(self) -> None:
        """Send the gradient that `values` came to through the tower; nothing where the tower is frozen or unused."""
        if self.values.grad is None:
            return
        after = _Random(self._device)
        try:
            for part, random in zip(self._parts, self._random, strict=True):
                random.restore()
                self._encode(part).backward(self.values.grad[part])  # type: ignore[no-untyped-call]
        finally:
            after.restore()


class _Random:
    """The state of torch's generators, of the CPU and of a device."""

    def __init__(self, device: torch.device) -> None:
        self._module: Any = None if device.type == "cpu" else torch.get_device_module(device)
        self._cpu = torch.get_rng_state()
        self._other = self._module.get_rng_state() if self._module else None

    def restore(self) -> None:
        """Draw again what was drawn from here."""
        torch.set_rng_state(self._cpu)
        if self._module:
            self._module.set_rng_state(self._other)
