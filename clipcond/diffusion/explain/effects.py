"""From predictions to effects: pure arithmetic on tensors.

map_p(y, x) = ‖ ε(c) − ε(c₋ₚ) ‖₂ over channels        strength_p = mean of map_p / mean of ‖ ε(c) − ε(∅) ‖₂
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from clipcond.encode.shapes import check_axes


def effect_maps(whole: Tensor, masked: Tensor) -> Tensor:
    """The size of each phrase's effect, place by place.

    whole: (C, h, w), the prediction for the whole text.   masked: (P, C, h, w), for the text with each phrase masked.
    Returns (P, h, w) float32. Raises ShapeError where axes do not fit.
    """
    size = check_axes("whole", whole, "C H W")
    check_axes("masked", masked, "P C H W", **size)
    maps: Tensor = torch.linalg.vector_norm(masked.float() - whole.float(), dim=1)
    return maps


def strengths(maps: Tensor, total: Tensor) -> Tensor:
    """Each map's mean beside that of the whole text's effect.

    maps: (P, h, w).   total: (h, w), ‖ ε(c) − ε(∅) ‖.   Returns (P,) float32; 0 where the whole text has no effect.
    """
    whole = total.float().mean()
    means = maps.float().mean(dim=(1, 2))
    return torch.zeros_like(means) if float(whole) == 0 else means / whole


def share(part: Tensor, effect: Tensor) -> Tensor:
    """The share of effects that a part of them makes up: ⟨part, effect⟩ / ⟨effect, effect⟩, 0 where there is none.

    part, effect: (P, …), changes of the prediction. The shares of parts that add up to the effect add up to 1.
    Returns (P,) float32.
    """
    flat, own = effect.float().flatten(1), part.float().flatten(1)
    square = (flat * flat).sum(dim=1)
    return torch.where(square > 0, (own * flat).sum(dim=1) / square.clamp_min(1e-30), torch.zeros_like(square))


def cells(maps: Tensor, rows: int = 3, columns: int = 3) -> Tensor:
    """The mean of each map in each cell of a grid over the picture.

    maps: (P, h, w).   Returns (P, rows, columns) float32; a place on the border of two cells counts in both by its share.
    """
    fine = interpolate(maps.float()[:, None], scale_factor=(rows, columns), mode="nearest")  # borders fall on places
    return torch.nn.functional.avg_pool2d(fine, maps.shape[-2:])[:, 0]


def concentrated(maps: Tensor) -> Tensor:
    """Maps without their floor, each adding up to 1: what stands above its median; (P, h, w) float32."""
    above = (maps.float() - maps.float().flatten(1).median(dim=1).values[:, None, None]).clamp_min(0)
    total = above.sum(dim=(1, 2), keepdim=True)
    return torch.where(total > 0, above / total.clamp_min(1e-30), torch.full_like(above, 1 / above[0].numel()))
