"""The terms of an objective that hold a batch's images and texts against one another."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from clipcond.train.losses.info_nce import info_nce
from clipcond.train.objective import Outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrastive:
    """Symmetric InfoNCE of the batch's pairs with the learned temperature."""

    name: str = "contrastive"
    apart: bool = False

    def __call__(self, outputs: Outputs) -> Tensor:
        return info_nce(outputs.images, outputs.texts, outputs.logit_scale, matches=outputs.matches)
