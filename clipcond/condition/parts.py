"""Prompts of several parts: how `.and()` and `.blend()` put their states together, and one part as a prompt of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from clipcond.condition.lengths import pad_with
from clipcond.encode.shapes import check_axes
from clipcond.errors import ShapeError
from clipcond.prompt.plan import Part, PromptPlan


def join(states: Sequence[Tensor], parts: Sequence[Part], empty: Tensor | None = None) -> Tensor:
    """Return the states of a prompt from those of its parts, with compel's arithmetic.

    states: (K, L, D) of each part, K may differ.   parts: their weights and how they are joined.
    empty: (L, D), the empty prompt's states; needed where `wants_empty` says so.
    `concatenate` lays the parts end to end, each as e + (c - e)·w, and is the part itself at weight 1; `blend` is
    Σ wc / Σ w and `sum` Σ wc, with shorter parts filled up with e. Weights that add up to 0 are not divided by.
    Returns (T, D) in the dtype of the states, computed in float32 or wider. Raises ShapeError for another number of
    parts, axes that differ, or e missing.
    """
    if len(states) != len(parts):
        raise ShapeError(f"states: of {len(states)} parts, expected {len(parts)}")
    rows = [each.reshape(-1, check_axes(f"part {n}", each, "K L D")["D"]) for n, each in enumerate(states)]
    if parts[0].how in ("concatenate", "noise"):
        return torch.cat([_weighed(each, part.weight, empty) for each, part in zip(rows, parts, strict=True)])
    length = max(len(each) for each in rows)
    return mix([_filled(each, empty, length) for each in rows], parts)


def mix(vectors: Sequence[Tensor], parts: Sequence[Part]) -> Tensor:
    """Return the weighted sum of tensors of one shape, `blend` divided by the sum of the weights unless that is 0."""
    wide = torch.promote_types(vectors[0].dtype, torch.float32)
    total = sum(part.weight for part in parts)
    divisor = total if parts[0].how == "blend" and abs(total) > 1e-6 else 1.0
    shares = [part.weight / divisor for part in parts]
    summed = torch.stack([each.to(wide) * share for each, share in zip(vectors, shares, strict=True)]).sum(dim=0)
    return summed.to(vectors[0].dtype)


def wants_empty(parts: Sequence[Part], counts: Sequence[int]) -> bool:
    """True if `join` needs e for parts of so many chunks each."""
    if parts[0].how in ("concatenate", "noise"):
        return any(part.weight != 1 for part in parts)
    return len(set(counts)) > 1


def only(plan: PromptPlan, part: int) -> PromptPlan:
    """Return one part of a plan as the plan of a prompt that is one; spans and warnings stay those of the whole."""
    encoders = {}
    for name, encoder in plan.encoders.items():
        chunks = [chunk for chunk in encoder.chunks if chunk.part == part]
        own = tuple(replace(chunk, index=index, part=0) for index, chunk in enumerate(chunks))
        count = None if encoder.content_tokens is None else sum(len(chunk.tokens) for chunk in own)
        encoders[name] = replace(encoder, chunks=own, content_tokens=count)
    return replace(plan, encoders=encoders, parts=())


def _weighed(rows: Tensor, weight: float, empty: Tensor | None) -> Tensor:
    if weight == 1:
        return rows
    wide = torch.promote_types(rows.dtype, torch.float32)
    e = _filled(rows[:0], empty, len(rows)).to(wide)
    return (e + (rows.to(wide) - e) * weight).to(rows.dtype)


def _filled(rows: Tensor, empty: Tensor | None, length: int) -> Tensor:
    if len(rows) == length:
        return rows
    if empty is None:
        raise ShapeError("empty: None, but parts of these weights and lengths want the empty prompt's states (L, D)")
    return pad_with(rows[None], empty.to(rows), length)[0]
