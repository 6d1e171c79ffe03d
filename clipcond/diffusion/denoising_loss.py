"""The denoiser of a pipeline as a loss of the text encoder that conditions it: frozen, with a graph to the states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clipcond.diffusion.denoising_loss_sdxl import SdxlDenoisingLoss
from clipcond.diffusion.frozen_denoiser import FrozenDenoiser
from clipcond.diffusion.pipeline_view import view_pipeline
from clipcond.diffusion.pipelines import load_pipeline
from clipcond.errors import ModelError

FAMILIES = ("sd15", "sd2")


class DenoisingLoss(FrozenDenoiser):
    """The loss of Stable Diffusion 1 and 2, whose U-Net reads one text encoder."""

    def __init__(self, pipe: Any, *, name: str) -> None:
        """name: of the pipeline, for messages. Raises ModelError for a family or a scheduler that this cannot train with."""
        family = view_pipeline(pipe).family
        if family not in FAMILIES:
            raise ModelError(
                f"{name} is a pipeline of {family}; the denoising loss knows {', '.join(FAMILIES)} and sdxl, whose denoisers "
                "are U-Nets that read CLIP"
            )
        super().__init__(pipe, name=name)
        self.target = family
        self.width = int(self._unet.config.cross_attention_dim)

    def loss(self, latents: Tensor, states: Tensor, draw: torch.Generator) -> Tensor:
        """The mean squared error of the prediction for (N, C, h, w) latents under (N, L, D) states, a float32 scalar."""
        return self.error(latents, states, draw)


def load_denoising_loss(
    spec: str, *, device: str | torch.device | None = None, target: str | None = None
) -> DenoisingLoss | SdxlDenoisingLoss:
    """Load a pipeline, `mini`, a folder or a hub id, for its loss.

    target: `sdxl-l` or `sdxl-g`, of SDXL the encoder that trains.   Raises ModelError as `load_pipeline` does, and for a
    pipeline that will not do; ConfigError for SDXL without such a target.
    """
    pipe = load_pipeline(spec, device=device)
    if view_pipeline(pipe).family != "sdxl":
        return DenoisingLoss(pipe, name=spec)
    return SdxlDenoisingLoss(pipe, name=spec, target=target)
