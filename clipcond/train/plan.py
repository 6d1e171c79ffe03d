"""What a run will take before there is one: memory of each process by its parts, steps and epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from clipcond.prompt.tokenizer import CONTEXT
from clipcond.train.config import TrainConfig
from clipcond.train.footprint import Footprint

FLOAT = 4  # bytes
BASE = {"cpu": 0.45 * 2**30, "gpu": 0.6 * 2**30}  # of a process with torch and its libraries; of a CUDA context
_GROUP = 64  # captions that go through the text tower at once, cut to the longest of them
_STRIP = {"cpu": 1 << 22, "gpu": 1 << 26}  # numbers of a strip of similarities; see clipcond.train.losses.strips
_STRIPS = 4  # of them at once: logits, their exponentials, a mask and gradients
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one process, by part.

    base: of the process itself. together: gradients of earlier parts are there while later ones are encoded.
    """

    weights: float
    gradients: float
    optimizer: float
    average: float
    activations: float
    retention: float
    losses: float
    base: float
    together: bool

    @property
    def peak(self) -> float:
        """The sum at the fullest moment of a step.

        Gradients grow as activations go, unless the batch comes in parts.
        """
        step = self.activations + self.retention + self.losses + (self.gradients if self.together else 0)
        held = self.weights + self.optimizer + self.average + self.base
        return held + max(step, self.gradients)

    def parts(self) -> Mapping[str, float]:
        """Return the parts by name, those of no size left out."""
        names = (
            "weights",
            "gradients",
            "optimizer",
            "average",
            "activations",
            "retention",
            "losses",
            "base",
        )
        return {name: getattr(self, name) for name in names if getattr(self, name)}


def memory_of(config: TrainConfig, found: Footprint, lengths: np.ndarray, *, gpus: int) -> Memory:
    """Return the memory of each process.

    lengths: (N,) int64 positions of captions, from which batches are drawn. gpus: processes with a GPU each; 0 for one on
    the CPU.
    """
    kind, processes = ("gpu", gpus) if gpus else ("cpu", 1)
    share = config.batch_size // processes
    once = min(config.grad_cache or share, share)
    of_text = found.text_bytes(group_lengths(lengths, once))
    of_images = 0.0 if "image" in config.frozen else once * found.image_pair + found.any_image
    parts = config.grad_cache is not None and once < share
    held = bool(config.retention)
    touched = min(share, once) * float(lengths.mean()) * found.width * FLOAT if found.table else 0.0
    dense = found.trained - found.table
    rows = found.table * (2 if config.unseen_rate is not None and "text" not in config.freeze else 1)
    retained = np.full(config.retention_batch + 1, CONTEXT)
    return Memory(
        weights=FLOAT * found.parameters, gradients=FLOAT * dense + 3 * touched, optimizer=2 * FLOAT * (dense + rows),
        average=0.0 if config.ema is None else FLOAT * found.trained,
        activations=max(of_text, of_images) if parts else of_text + of_images,
        retention=found.text_bytes(retained) if held else 0.0, base=BASE[kind], together=parts or held,
        losses=_losses(config.batch_size, share, found.pooled, _STRIP[kind], config.chunk_size),
    )  # fmt: skip


def _losses(batch: int, share: int, pooled: int, strip: int, chunk_size: int | None) -> float:
    """Bytes of features, their gradients and a few strips of similarities."""
    rows = min(share, chunk_size or max(1, strip // max(1, batch)))
    return FLOAT * (4 * (share + batch) * pooled + _STRIPS * rows * batch)


def group_lengths(lengths: np.ndarray, count: int) -> np.ndarray:
    """Return the positions that `count` captions take: in groups of like length, each cut to its longest."""
    drawn = np.sort(np.random.default_rng(0).choice(lengths, count))
    longest = [np.full(len(part), part[-1]) for part in np.split(drawn, range(_GROUP, count, _GROUP)) if len(part)]
    return np.concatenate(longest)


def that_fits(
    config: TrainConfig, found: Footprint, lengths: np.ndarray, *, gpus: int, room: float
) -> Iterator[tuple[str, int, float]]:
    """Yield changes that fit into `room` bytes a process, each the largest power of two: a setting, its value, the peak.

    `grad_cache` keeps the batch, and is left out for a tower with batch normalisation; `batch_size` does not.
    """
    processes = max(1, gpus)
    caches = () if found.batch_norm and "image" not in config.frozen else _halves(config.batch_size // processes, 1)
    choices = (
        ("grad_cache", [replace(config, grad_cache=value) for value in caches]),
        ("batch_size", [replace(config, batch_size=value) for value in _halves(config.batch_size, max(2, processes))]),
    )
    for setting, changed in choices:
        fitting = ((each, memory_of(each, found, lengths, gpus=gpus).peak) for each in changed)
        first = next(((each, peak) for each, peak in fitting if peak <= room), None)
        if first is not None:
            yield setting, getattr(first[0], setting), first[1]


def _halves(below: int, least: int) -> list[int]:
    """Return the powers of two below a number, from the largest on, that are multiples of `least` or not less than it."""
    powers = (1 << exponent for exponent in reversed(range(max(0, (below - 1).bit_length()))))
    return [power for power in powers if power >= least and power % least == 0]
