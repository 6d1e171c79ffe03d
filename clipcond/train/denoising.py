"""The denoising loss: a caption's states must let the frozen denoiser of a pipeline take the noise off its picture."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from clipcond.images.preprocess import Preprocess
from clipcond.prompt.tokenizer import CONTEXT, EOS
from clipcond.train.objective import Outputs
from clipcond.train.retention import TargetReader
from clipcond.train.stored import Stored


class Denoiser(Protocol):
    """The frozen denoiser of a pipeline, as this room sees it; `clipcond.diffusion.denoising_loss` makes one."""

    @property
    def target(self) -> str:
        """The target whose states it reads, a name of TARGETS."""

    @property
    def width(self) -> int:
        """D of the states it reads."""

    @property
    def preprocess(self) -> Preprocess:
        """The way of a picture to its size."""

    def latents(self, pixels: np.ndarray) -> Tensor:
        """(N, H, W, 3) uint8 to (N, C, h, w) float32, the same for the same picture."""

    def loss(self, latents: Tensor, states: Tensor, draw: torch.Generator) -> Tensor:
        """The mean squared error of its prediction, float32, for (N, C, h, w) latents under (N, L, D) states.

        draw: on the CPU, of the noise and of the N timesteps.
        """


class Denoising:
    """The term, for the first `batch` pairs of each batch."""

    name, apart, shared = "denoising", True, False

    def __init__(self, denoiser: Denoiser, reader: TargetReader, latents: Stored, *, batch: int, seed: int) -> None:
        self._denoiser, self._reader, self.latents = denoiser, reader, latents
        self._batch, self._seed = batch, seed

    def __call__(self, outputs: Outputs) -> Tensor:
        batch = outputs.batch
        rows, ids = batch.rows[: self._batch], torch.from_numpy(batch.ids[: self._batch])
        draw = torch.Generator().manual_seed(int(np.random.default_rng([self._seed, 6, batch.step]).integers(2**62)))
        with outputs.towers.autocast():
            states = self._reader(padded(ids, self._reader.reading.pad_id)).states
            assert states is not None, "the targets of denoisers here read states"
            return self._denoiser.loss(self.latents[rows].to(outputs.towers.device), states, draw)


def padded(ids: Tensor, pad_id: int) -> Tensor:
    """Return (N, 77) rows of (N, L) ones padded with EOS: behind the first EOS of each stands `pad_id`."""
    full = torch.full((len(ids), CONTEXT), EOS)
    full[:, : ids.shape[1]] = ids
    ends = (full == EOS).int().argmax(dim=1, keepdim=True)
    return torch.where(torch.arange(CONTEXT) > ends, pad_id, full)
