"""Devices by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def exact_convolutions(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """While open, convolutions in float32 on CUDA are computed in float32.

    By default cuDNN rounds their inputs to TF32's ten bits of mantissa, which matrix products do not: the first layer of an
    image encoder alone would then move scores by 1e-4.
    """
    if device.type != "cuda" or dtype != torch.float32:
        yield
        return
    cudnn = torch.backends.cudnn
    flags, name = (
        (cudnn.conv, "fp32_precision") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32")
    )  # before torch 2.9
    before = getattr(flags, name)
    setattr(flags, name, "ieee" if name == "fp32_precision" else False)
    try:
        yield
    finally:
        setattr(flags, name, before)


def device_rng(device: torch.device) -> torch.Tensor:
    """Return the state of the generator of a device, (S,) uint8 on the CPU; empty for the CPU itself."""
    if device.type == "cpu":
        return torch.empty(0, dtype=torch.uint8)
    state: torch.Tensor = torch.get_device_module(device).get_rng_state()
    return state


def set_device_rng(device: torch.device, state: torch.Tensor) -> None:
    """Let a device draw again from a state that `device_rng` gave; nothing for an empty one."""
    if device.type != "cpu" and len(state):
        torch.get_device_module(device).set_rng_state(state)
