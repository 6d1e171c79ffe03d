"""Checkpoint files to state dicts, as data: safetensors, pickles without code, OpenAI's TorchScript archives."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipcond.errors import ModelError
from clipcond.models.torchscript import is_torchscript, read_torchscript

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_OPENAI = ("input_resolution", "context_length", "vocab_size")  # beside the weights in OpenAI's own archives


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The weights of a checkpoint by name; openai: true for OpenAI's own files, whose models have quick GELU."""

    weights: dict[str, Tensor]
    openai: bool


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the state dict of a file, also where it lies under `state_dict`, or every name begins with `module.`.

    Nothing in the file is run. Raises ModelError if it holds no weights by name, and what the readers raise.
    """
    document = _read(path)
    state = document.get("state_dict", document) if isinstance(document, dict) else document
    if not isinstance(state, dict) or not state:
        raise ModelError(f"{path} holds no weights by name; expected a state dict")
    weights = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if len(weights) < len(state):
        odd = next(name for name, value in state.items() if not isinstance(value, Tensor))
        raise ModelError(f"{path} holds {str(odd)!r}, which is no weight; expected a state dict of tensors alone")
    inflated = next((name for name, value in weights.items() if _inflated(value)), None)
    if inflated is not None:
        raise ModelError(f"{path} holds {inflated!r}, which claims more numbers than it stores")
    if all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    openai = any(name in weights for name in _OPENAI)
    return Checkpoint({name: value for name, value in weights.items() if name not in _OPENAI}, openai)


def fill_open_clip(model: Any, checkpoint: Checkpoint) -> None:
    """Load a state dict into an open_clip model, in whichever of its layouts it is; every weight must be there.

    Position embeddings of another picture size are resized. Raises what `load_state_dict` raises.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    state = convert_state_dict(model, {name: value.float() for name, value in checkpoint.weights.items()})
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    state.pop(
        "text.transformer.embeddings.position_ids", None
    )  # stored by old versions of transformers; computed since
    for scalar in ("logit_scale", "logit_bias"):
        if scalar in state and getattr(model, scalar) is not None:
            state[scalar] = state[scalar].reshape(getattr(model, scalar).shape)
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    model.load_state_dict(state, strict=True)


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if zipfile.is_zipfile(path) and is_torchscript(path):
        return read_torchscript(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _inflated(value: Tensor) -> bool:
    """True if a tensor, by strides of 0, would be larger in memory than in its file."""
    return value.layout is torch.strided and value.numel() * value.element_size() > value.untyped_storage().nbytes()
