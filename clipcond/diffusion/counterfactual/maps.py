"""From predictions to a steered prediction: pure arithmetic on tensors.

    ε' = ε(c) + Σ_p (w_p − 1) · M_p ⊙ (ε(c) − ε(c₋ₚ))        M_p = ‖ ε(c) − ε(c₋ₚ) ‖₂, brought to 0…1

Differences of two texts' predictions as a mask: DiffEdit (Couairon et al. 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

TOP = 0.98  # the quantile of a map that counts as its top
NONE, ALL = 0.2, 0.4  # shares of the top: up to the first a phrase does not act, from the second on it acts wholly


def effect_map(difference: Tensor) -> Tensor:
    """The size of an effect, place by place, its mean 1; zeros where there is none.

    difference: (C, h, w), or (N, C) of patches in a row.   Returns (1, h, w) or (N, 1), float32.
    """
    size: Tensor = torch.linalg.vector_norm(difference.float(), dim=channels(difference), keepdim=True)
    scaled: Tensor = size / size.mean().clamp_min(torch.finfo(torch.float32).tiny)
    return scaled


def acting_places(effect: Tensor) -> Tensor:
    """M: 1 where a phrase acts, 0 where it does not, between them on the way from `NONE` to `ALL` of the map's top.

    effect: a map of any shape, of any scale.   Returns float32 of its shape; zeros for a map of zeros.
    """
    top = effect.float().flatten().quantile(TOP)
    if float(top) <= 0:
        return torch.zeros_like(effect, dtype=torch.float32)
    return ((effect.float() / top - NONE) / (ALL - NONE)).clamp(0, 1)


def steered_prediction(whole: Tensor, others: Tensor, weights: Tensor, places: Tensor) -> Tensor:
    """ε': the prediction for a text, each of its phrases at its weight where it acts.

    whole: (…), the prediction for the text.   others: (P, …), for the text without each phrase.   weights: (P).
    places: (P, …), M of each phrase, one for all channels.
    Returns (…) in whole's dtype, computed in float32 or wider as (1 + Σ a_p)·ε(c) − Σ a_p·ε(c₋ₚ), a_p = (w_p − 1)·M_p: so
    weights of 1 give ε(c) to the last bit, and one phrase of weight 0 with M = 1 gives ε(c₋ₚ).
    Where phrases of more than 1 act, no place gets larger than it was, as rescaled guidance does it for the whole picture (Lin
    et al. 2023): colours would leave their range.
    """
    wide = torch.promote_types(whole.dtype, torch.float32)
    shape = (-1, *[1] * whole.ndim)
    shares = (weights.to(whole.device, wide).view(shape) - 1) * places.to(whole.device, wide)
    mixed = (1 + shares.sum(dim=0)) * whole.to(wide) - (shares * others.to(wide)).sum(dim=0)
    if bool((weights > 1).any()):
        mixed = mixed * _shrunk(whole.to(wide), mixed, places[weights > 1].amax(dim=0).to(mixed))
    return mixed.to(whole.dtype)


def _shrunk(whole: Tensor, mixed: Tensor, places: Tensor) -> Tensor:
    """The factor, at most 1, that brings places to the size that they had."""
    before, after = (torch.linalg.vector_norm(each, dim=channels(each), keepdim=True) for each in (whole, mixed))
    factor: Tensor = 1 + places * ((before / after.clamp_min(torch.finfo(after.dtype).tiny)).clamp(max=1) - 1)
    return factor


def channels(prediction: Tensor) -> int:
    """The axis of the channels of one picture's prediction: the first, or of patches in a row the last."""
    return 0 if prediction.ndim == 3 else -1
