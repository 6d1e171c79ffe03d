"""What a model is, in a short text: its weights and its adapters."""

from __future__ import annotations

import hashlib

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


def running_device(model: nn.Module, weight: Tensor) -> torch.device:
    """Where a forward of `model` runs: as its offload hooks say, or else where one of its weights is."""
    for module in model.modules():
        execution = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if execution is not None:
            return torch.device(execution)
    return torch.device("cpu") if weight.device.type == "meta" else weight.device
