"""The arithmetic of weighting, on states and weights that `weighting` has checked. No function writes into its input.

z: (K, L, D) in float32 or wider.   w: (K, L, 1), of z's dtype and device.   e: (L, D), the empty prompt's states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from clipcond.condition.masked_chunks import MaskedChunk, Term


def comfy(z: Tensor, w: Tensor, e: Tensor) -> Tensor:
    """e + w·(z − e); rows of weight 1 as they are."""
    return torch.where(w == 1, z, e + w * (z - e))


def restore_mean(z: Tensor, w: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """z·w, scaled so that each chunk keeps the mean over its rows and width; and the chunks where that was not done.

    It is not done where a mean is within one standard error of zero, what is left of numbers that cancel out, or where
    the two differ in sign: the quotient would blow the states up, make them vanish, or turn them around.
    """
    y = z * w
    (before, sound), (after, sound_after) = _mean(z), _mean(y)
    sound = sound & sound_after & (before.sign() == after.sign())
    touched = (w != 1).flatten(1).any(dim=1)
    factor = torch.where(sound & touched, before / after, torch.ones_like(before))
    return y * factor[:, None, None], tuple((touched & ~sound).nonzero().flatten().tolist())


def _mean(states: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (K,) of each chunk, and whether it is more than one standard error from zero."""
    flat = states.flatten(1)
    mean = flat.mean(dim=1)
    return mean, mean.abs() > flat.std(dim=1, correction=0) / flat.shape[1] ** 0.5


def compel(z: Tensor, w: Tensor, e: Tensor, terms: Sequence[Term], states: Mapping[MaskedChunk, Tensor]) -> Tensor:
    """(B + Σ tᵢ·Mᵢ) / (1 + Σ tᵢ): B as `comfy`, Mᵢ the same with fragment i masked; written as B + Σ sᵢ·(Mᵢ − B).

    So chunks that a fragment is not in, and rows that do not notice it, stay as they are to the last bit.
    """
    base = comfy(z, w, e)
    out = base.clone()
    for share, variant in terms:
        at = variant.chunk
        out[at] += share * (comfy(states[variant].to(z), w[at], e) - base[at])
    return out


def comfy_pp(
    z: Tensor, w: Tensor, down: Sequence[Term], up: Sequence[MaskedChunk], states: Mapping[MaskedChunk, Tensor]
) -> Tensor:
    """down(z) + (w⁺ − 1)·Σ 1ᵢ·(z − zᵢ): down as in `down_terms`, zᵢ the states with piece i replaced, 1ᵢ its own rows."""
    out = z.clone()
    for factor, variant in down:
        out[variant.chunk] += factor * (states[variant].to(z) - z[variant.chunk])
    for variant in up:
        at, rows = variant.chunk, list(variant.positions)
        out[at, rows] += (w[at, rows] - 1) * (z[at, rows] - states[variant].to(z)[rows])
    return out
