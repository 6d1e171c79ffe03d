"""The blocks of both towers as a training runs them: compiled, or computed again in the backward pass to save memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from clipcond.errors import ConfigError

_COMPILERS = ("g++", "clang++", "c++", "cl")


def blocks_of(tower: Any) -> Iterator[nn.Module]:
    """Yield the residual blocks of a tower's transformer, none of a ResNet or a tower of timm."""
    yield from getattr(getattr(tower, "transformer", None), "resblocks", ())


def training_blocks(model: Any) -> Iterator[nn.Module]:
    """Yield the blocks of those towers of which something trains."""
    for tower in (model, model.visual):
        blocks = list(blocks_of(tower))
        if any(parameter.requires_grad for block in blocks for parameter in block.parameters()):
            yield from blocks


def compile_blocks(model: Any, device: torch.device) -> None:
    """Let torch compile the blocks that train, for rows of any length. Raises ConfigError where a CPU has no compiler."""
    found = [name for name in (*_COMPILERS, os.environ.get("CXX", "")) if name and shutil.which(name)]
    if device.type == "cpu" and not found:
        raise ConfigError("compile needs a C++ compiler on a CPU, and there is no g++ or clang++ here; leave it out")
    for block in training_blocks(model):
        block.forward = torch.compile(block.forward, dynamic=True)


def checkpoint_blocks(model: Any) -> str | None:
    """Let the blocks that train keep their input alone, and compute the rest again; the gradients are the same bits.

    After `compile_blocks`.   Returns a note where a tower has no such blocks; None where all is reached.
    """
    for block in training_blocks(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    trains = any(parameter.requires_grad for parameter in model.visual.parameters())
    if trains and not any(blocks_of(model.visual)):
        return f"grad_checkpointing does not reach the image tower, a {type(model.visual).__name__} without blocks"
    return None
