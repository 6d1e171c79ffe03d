"""The dtype that pictures are encoded in: float32, or half of it where the machine multiplies that faster."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from clipcond.encode.image import ImageTower
from clipcond.errors import ConfigError
from clipcond.runtime.processor import multiplies_bfloat16

Precision = Literal["fp32", "auto", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of a precision on a device.

    fp32 is exact. auto: float16 on CUDA, bfloat16 on a CPU with instructions for it, float32 elsewhere. Raises ConfigError
    for another name, and for fp16 on a CPU, which would be slower than float32.
    """
    if precision == "auto":
        if device.type == "cuda":
            return torch.float16
        return torch.bfloat16 if device.type == "cpu" and multiplies_bfloat16() else torch.float32
    if precision not in _DTYPES:
        raise ConfigError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("fp16 is for a GPU; on a CPU take bf16, or auto for what this one does well")
    return _DTYPES[precision]


def cast_tower(tower: ImageTower, precision: str) -> tuple[str, ...]:
    """Cast an image encoder. Returns notes: bfloat16 where this processor has no instructions for it is slow."""
    dtype = dtype_of(precision, tower.device)
    if tower.dtype != dtype:
        tower.cast(dtype)
    if dtype == torch.bfloat16 and tower.device.type == "cpu" and not multiplies_bfloat16():
        return ("this processor has no instructions for bfloat16: fp32 is exact, and likely faster",)
    return ()
