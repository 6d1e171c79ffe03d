"""The denoiser of a pipeline as a loss of the text encoder that conditions it: frozen, with a graph to the states.

`load_denoising_loss` makes that of any pipeline with a U-Net; `denoising_loss_sdxl` has the one with two encoders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clipcond.diffusion.pipeline_view import view_pipeline
from clipcond.diffusion.pipelines import load_pipeline
from clipcond.errors import ModelError
from clipcond.images.preprocess import Preprocess

if TYPE_CHECKING:
    from clipcond.diffusion.denoising_loss_sdxl import SdxlDenoisingLoss

FAMILIES = ("sd15", "sd2")


class FrozenDenoiser:
    """VAE and U-Net of a Stable Diffusion pipeline.

    Timesteps are drawn with a density that rises with the noise, as 2t: it is there that the text decides.
    """

    def __init__(self, pipe: Any, *, name: str) -> None:
        """name: of the pipeline, for messages. Raises ModelError for a scheduler that this cannot train with."""
        self._vae, self._unet = pipe.vae.requires_grad_(False), pipe.unet.requires_grad_(False)
        if self._unet.device.type == "cpu":
            from diffusers.models.attention_processor import AttnProcessor

            self._unet.set_attn_processor(AttnProcessor())  # a backward pass of torch's own kernel takes longer there
        self._kind: str = pipe.scheduler.config.prediction_type
        if self._kind not in ("epsilon", "v_prediction", "sample"):
            raise ModelError(f"{name} predicts {self._kind}; expected epsilon, v_prediction or sample")
        self._alphas: Tensor = pipe.scheduler.alphas_cumprod
        self.side = int(self._unet.config.sample_size * pipe.vae_scale_factor)
        half = (0.5, 0.5, 0.5)
        self.preprocess = Preprocess(height=self.side, width=self.side, mean=half, std=half)

    @torch.no_grad()
    def latents(self, pixels: np.ndarray) -> Tensor:
        """(N, H, W, 3) uint8 to (N, C, h, w) float32: the mean of the VAE's posterior, scaled as the U-Net knows it."""
        vae: Any = self._vae
        given = torch.from_numpy(pixels).to(vae.device).permute(0, 3, 1, 2).to(vae.dtype) / 127.5 - 1
        found: Tensor = vae.encode(given).latent_dist.mean * vae.config.scaling_factor
        return found.float()

    def error(self, latents: Tensor, states: Tensor, draw: torch.Generator, **given: Any) -> Tensor:
        """The mean squared error of the prediction for (N, C, h, w) latents under (N, L, D) states, a float32 scalar.

        given: what else the U-Net is called with.
        """
        steps = len(self._alphas)
        times = (torch.rand(len(latents), generator=draw).sqrt() * steps).long().clamp(max=steps - 1).to(latents.device)
        noise = torch.randn(latents.shape, generator=draw).to(latents.device)
        kept = self._alphas.to(latents.device)[times].view(-1, 1, 1, 1)
        noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
        dtype = self._unet.dtype
        said: Tensor = self._unet(noisy.to(dtype), times, encoder_hidden_states=states.to(dtype), **given).sample
        if self._kind == "v_prediction":
            wanted = kept.sqrt() * noise - (1 - kept).sqrt() * latents
        else:
            wanted = noise if self._kind == "epsilon" else latents
        return (said.float() - wanted).square().mean()


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
    from clipcond.diffusion.denoising_loss_sdxl import SdxlDenoisingLoss

    return SdxlDenoisingLoss(pipe, name=spec, target=target)
