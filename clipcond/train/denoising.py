"""The denoising loss: a caption's states must let the frozen denoiser of a pipeline take the noise off its picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from clipcond.images.preprocess import Preprocess
from clipcond.prompt.tokenizer import CONTEXT, EOS
from clipcond.train.batches import Batch
from clipcond.train.data import Pairs
from clipcond.train.encoders import TWO_ENCODERS
from clipcond.train.objective import Outputs
from clipcond.train.retention import Read, TargetReader
from clipcond.train.second_captions import beside
from clipcond.train.stored import Stored


class SingleDenoiser(Protocol):
    """The frozen denoiser of a pipeline with one CLIP encoder, as this room sees it; `clipcond.diffusion` makes one."""

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


class PairDenoiser(Protocol):
    """The frozen denoiser of a pipeline with two CLIP encoders, of which one trains."""

    @property
    def target(self) -> str:
        """The target whose encoder trains, a name of TARGETS."""

    @property
    def width(self) -> int:
        """D of the states of that encoder."""

    @property
    def preprocess(self) -> Preprocess:
        """The way of a picture to its size."""

    def latents(self, pixels: np.ndarray) -> Tensor:
        """(N, H, W, 3) uint8 to (N, C, h, w) float32, the same for the same picture."""

    def loss(
        self, latents: Tensor, states: Tensor, pooled: Tensor | None, beside: Sequence[str], draw: torch.Generator
    ) -> Tensor:
        """The mean squared error of its prediction, float32, for (N, C, h, w) latents.

        states, pooled: (N, L, D) and (N, P), of the encoder that trains.   beside: N captions for the other one.
        """


Denoiser = SingleDenoiser | PairDenoiser
Predicts = Callable[[Tensor, Read, Batch, torch.Generator], Tensor]


class Denoising:
    """The term, for the first `batch` pairs of each batch."""

    name, apart, shared = "denoising", True, False

    def __init__(self, predicts: Predicts, reader: TargetReader, latents: Stored, *, batch: int, seed: int) -> None:
        """predicts: (N, C, h, w) latents, what is read of their captions, and the batch whose first N they are → the loss."""
        self._predicts, self._reader, self.latents = predicts, reader, latents
        self._batch, self._seed = batch, seed

    def __call__(self, outputs: Outputs) -> Tensor:
        batch = outputs.batch
        rows, ids = batch.rows[: self._batch], torch.from_numpy(batch.ids[: self._batch])
        draw = torch.Generator().manual_seed(int(np.random.default_rng([self._seed, 6, batch.step]).integers(2**62)))
        with outputs.towers.autocast():
            read = self._reader(padded(ids, self._reader.reading.pad_id))
            return self._predicts(self.latents[rows].to(outputs.towers.device), read, batch, draw)


def predicts_of(denoiser: Denoiser, pairs: Pairs) -> Predicts:
    """Return the loss of a denoiser, of one that reads a second encoder with what `pairs` say for it."""
    if denoiser.target in TWO_ENCODERS:
        return of_two_encoders(cast(PairDenoiser, denoiser), pairs)
    return of_one_encoder(cast(SingleDenoiser, denoiser))


def of_one_encoder(denoiser: SingleDenoiser) -> Predicts:
    """Return the loss of a denoiser that reads the encoder that trains, and nothing else."""

    def predicts(latents: Tensor, read: Read, batch: Batch, draw: torch.Generator) -> Tensor:
        return denoiser.loss(latents, _states(read), draw)

    return predicts


def of_two_encoders(denoiser: PairDenoiser, pairs: Pairs) -> Predicts:
    """Return the loss of a denoiser that reads another encoder too, which is given what `pairs` say for it."""

    def predicts(latents: Tensor, read: Read, batch: Batch, draw: torch.Generator) -> Tensor:
        rows = batch.rows[: len(latents)].tolist()
        drawn = [0] * len(rows) if batch.drawn is None else batch.drawn[: len(rows)].tolist()
        texts = [beside(pairs, row, number) for row, number in zip(rows, drawn, strict=True)]
        return denoiser.loss(latents, _states(read), read.pooled, texts, draw)

    return predicts


def _states(read: Read) -> Tensor:
    assert read.states is not None, "the targets of denoisers here read states"
    return read.states


def padded(ids: Tensor, pad_id: int) -> Tensor:
    """Return (N, 77) rows of (N, L) ones padded with EOS: behind the first EOS of each stands `pad_id`."""
    full = torch.full((len(ids), CONTEXT), EOS)
    full[:, : ids.shape[1]] = ids
    ends = (full == EOS).int().argmax(dim=1, keepdim=True)
    return torch.where(torch.arange(CONTEXT) > ends, pad_id, full)
