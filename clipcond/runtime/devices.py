"""Devices by name."""

from __future__ import annotations

import torch

from clipcond.errors import ConfigError


def device_of(name: str | torch.device | None) -> torch.device:
    """`auto` or None: CUDA where there is one, else the CPU; otherwise what torch calls a device.

    Raises ConfigError if it is not there.
    """
    if name is None or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device is {str(name)!r}, which torch cannot use here; name cpu, cuda (cuda:1 is the second of several) or mps"
        ) from error
