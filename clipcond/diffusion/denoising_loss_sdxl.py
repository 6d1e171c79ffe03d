"""The denoising loss of SDXL, whose U-Net reads two text encoders: one of them trains, the other stands beside it, frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clipcond.condition.families import LAYOUTS, layer
from clipcond.condition.targets import TARGETS
from clipcond.diffusion.frozen_denoiser import FrozenDenoiser
from clipcond.diffusion.pipeline_view import view_pipeline
from clipcond.errors import ConfigError, ModelError
from clipcond.models.clinic import rows_of

_TARGETS = tuple(name for name, (family, _) in TARGETS.items() if family == "sdxl")


class SdxlDenoisingLoss(FrozenDenoiser):
    """VAE, U-Net and the other text encoder of an SDXL pipeline.

    The U-Net is told that every picture has the size it was trained on, uncropped, as the pipeline tells it by default.
    """

    def __init__(self, pipe: Any, *, name: str, target: str | None) -> None:
        """target: `sdxl-l` or `sdxl-g`, the encoder that trains.   name: of the pipeline, for messages.

        Raises ConfigError for another target, ModelError for another family, a part that lacks, or latents that are
        not scaled alone.
        """
        view = view_pipeline(pipe)
        if view.family != "sdxl":
            raise ModelError(f"{name} is a pipeline of {view.family}, expected sdxl")
        if target not in _TARGETS:
            raise ConfigError(
                f"{name} is a pipeline of sdxl, which has two text encoders; say by target which of them trains: "
                f"{' or '.join(_TARGETS)} (target is {target})"
            )
        super().__init__(pipe, name=name)
        if getattr(pipe.vae.config, "latents_mean", None) is not None:
            raise ModelError(f"{name} has a VAE whose latents are also shifted (latents_mean); expected scaled ones")
        self.target, self._trains = target, TARGETS[target][1]
        self.width = view.encoders[self._trains].tower.width
        (self._other,) = (each for each in view.encoders.values() if each.name != self._trains)
        self._other.module.requires_grad_(False)
        size = (self.side, self.side)
        pooled = int(pipe.text_encoder_2.config.projection_dim)
        self._time_ids: Tensor = pipe._get_add_time_ids(
            size, (0, 0), size, dtype=torch.float32, text_encoder_projection_dim=pooled
        )

    def loss(
        self, latents: Tensor, states: Tensor, pooled: Tensor | None, beside: Sequence[str], draw: torch.Generator
    ) -> Tensor:
        """The mean squared error of the prediction for (N, C, h, w) latents, a float32 scalar.

        states: (N, 77, D) of the encoder that trains.   pooled: (N, P) of it, where it is `clip_g`, else unread.
        beside: N captions for the other encoder.
        """
        other_states, other_pooled = self._read(beside)
        parts = {self._trains: states, self._other.name: other_states.to(states)}
        joined = torch.cat([parts[name] for name in LAYOUTS["sdxl"].concat_width], dim=-1)
        vector = pooled if self._trains == "clip_g" else other_pooled
        assert vector is not None, "clip_g has a projection in every SDXL pipeline"
        dtype = self._unet.dtype
        told = {
            "text_embeds": vector.to(latents.device, dtype),
            "time_ids": self._time_ids.to(latents.device, dtype).expand(len(latents), -1),
        }
        return self.error(latents, joined, draw, added_cond_kwargs=told)

    @torch.no_grad()
    def _read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Return the (N, 77, D) states and (N, P) projected vectors that the pipeline reads of the other encoder."""
        skip, norm = layer(LAYOUTS["sdxl"], self._other.name, 0)
        tower: Any = self._other.tower
        out = tower.encode(rows_of(texts, pad_id=self._other.pad_id), clip_skip=skip, final_norm=norm)
        return out.hidden, out.projected
