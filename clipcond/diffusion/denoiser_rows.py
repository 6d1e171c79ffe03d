"""The rows of a denoiser's call, taken anew: other texts, and each row as often as there are texts for its latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

STATES, POOLED, ADDED = "encoder_hidden_states", "pooled_projections", "added_cond_kwargs"
_ALIKE = ("cross_attention_kwargs", "joint_attention_kwargs", "return_dict", "txt_ids", "img_ids")  # have no rows


def is_asked(given: Tensor, asked: Tensor) -> bool:
    """True if the rows of a denoiser are those of an argument of the call, each as often as the pipeline has pictures of it.

    given: (n · N, …).   asked: (N, …), in any dtype and on any device.
    """
    if given.shape[1:] != asked.shape[1:]:
        return False
    return torch.equal(given, asked.repeat_interleave(len(given) // len(asked), dim=0).to(given))


def with_rows(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], index: Tensor, states: Tensor, pooled: Tensor | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call with R rows, of which row i has the latents, times and residuals of row index[i].

    index: (R) int64, rows of the call.   states: (R, T, D), the texts.   pooled: (R, P), for families that have such a vector.
    """
    rows = len(kwargs[STATES])
    named = {name: each if name in _ALIKE else taken(each, index, rows) for name, each in kwargs.items()}
    named[STATES] = states.to(kwargs[STATES])
    if pooled is not None and kwargs.get(POOLED) is not None:
        named[POOLED] = pooled.to(kwargs[POOLED])
    if pooled is not None and kwargs.get(ADDED):
        named[ADDED] = {**named[ADDED], "text_embeds": pooled.to(kwargs[ADDED]["text_embeds"])}
    return tuple(taken(each, index, rows) for each in args), named


def taken(value: Any, index: Tensor, rows: int) -> Any:
    """A value, however nested, with the rows `index` of each tensor that has so many rows."""
    if isinstance(value, Tensor):
        return value[index.to(value.device)] if value.ndim and len(value) == rows else value
    if isinstance(value, (list, tuple)):
        return type(value)(taken(each, index, rows) for each in value)
    return {name: taken(each, index, rows) for name, each in value.items()} if isinstance(value, dict) else value
