"""What a model is, in a short text: its weights and its adapters."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn


class Fingerprint:
    """The fingerprint of one model, called for each time it is needed."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self) -> str:
        """A hex digest of all weights."""
        digest = hashlib.sha256()
        for name, value in self._model.state_dict().items():
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            if value.device.type == "meta":
                digest.update(str(id(value)).encode())
            else:
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def running_device(model: Any, weight: Tensor) -> torch.device:
    """Where a forward of `model` runs, by its offload hook if it has one, or else by one of its weights."""
    execution = getattr(getattr(model, "_hf_hook", None), "execution_device", None)
    if execution is not None:
        return torch.device(execution)
    return torch.device("cpu") if weight.device.type == "meta" else weight.device
