"""The frozen half of a denoising loss: the VAE and the U-Net of a pipeline, with a graph to the conditioning."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipcond.errors import ModelError
from clipcond.images.preprocess import Preprocess


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
