"""The arithmetic of operations on conditionings: tensors of states (B, T, D) and of pooled vectors (B, P) alike.

x: the conditioning.   e: that of the empty prompt.   Both, and all others, of one shape, dtype and device. Computed in float32
or wider; no function writes into its input. At the ends of their ranges they return their arguments bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PARALLEL = 1e-4  # radians of an angle below which an arc is a line


def lerp(x: Tensor, y: Tensor, t: float) -> Tensor:
    """x + t·(y − x)."""
    if t in (0, 1):
        return y if t else x
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.lerp(x.to(wide), y.to(wide), t).to(x.dtype)


def slerp(x: Tensor, y: Tensor, t: float, about: Tensor | None = None) -> Tensor:
    """o + (sin((1 − t)Ω)·(x − o) + sin(tΩ)·(y − o)) / sin Ω for each vector, Ω the angle between them at o.

    about: o; None is zero. (Shoemake 1985; about another point, as a prompt's distance from the empty one is what it says.)
    Vectors that lie in one line, or at o, are taken along the line.
    """
    if t in (0, 1):
        return y if t else x
    wide = torch.promote_types(x.dtype, torch.float32)
    a, b = x.to(wide), y.to(wide)
    origin = torch.zeros_like(a) if about is None else about.to(wide)
    a, b = a - origin, b - origin
    lengths = a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True)
    cosine = (a * b).sum(dim=-1, keepdim=True) / torch.where(lengths > 0, lengths, 1)
    angle = torch.acos(cosine.clamp(-1, 1))
    sine = torch.sin(angle)
    curved = (lengths > 0) & (angle > _PARALLEL) & (sine > _PARALLEL)
    share = torch.where(curved, sine, 1)
    arc = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / share
    return (origin + torch.where(curved, arc, torch.lerp(a, b, t))).to(x.dtype)


def slide(x: Tensor, prompt: Tensor, low: Tensor, high: Tensor, t: float) -> Tensor:
    """x + (lerp(low, high, t) − prompt): where x is still that of the prompt, lerp(low, high, t) itself."""
    between = lerp(low, high, t)
    wide = torch.promote_types(x.dtype, torch.float32)
    moved = (x.to(wide) + (between.to(wide) - prompt.to(wide))).to(x.dtype)
    return torch.where(x == prompt, between, moved)


def vary(x: Tensor, e: Tensor, strength: float, seed: int) -> Tensor:
    """x + strength·r·n: n normal noise of seed + row, r the root mean square of x − e of each vector.

    What an empty prompt says too, the beginning of the text, stays as it is. The noise is drawn on the CPU, in float32.
    """
    if strength == 0:
        return x
    wide = torch.promote_types(x.dtype, torch.float32)
    noise = torch.stack(
        [torch.randn(x.shape[1:], generator=torch.Generator("cpu").manual_seed(seed + row)) for row in range(len(x))]
    )
    size = (x.to(wide) - e.to(wide)).square().mean(dim=-1, keepdim=True).sqrt()
    return (x.to(wide) + strength * size * noise.to(x.device, wide)).to(x.dtype)
