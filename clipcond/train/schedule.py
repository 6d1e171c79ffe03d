"""The lengths of a run: steps of an epoch, of the whole run and of its warm-up."""

from __future__ import annotations

import math

from clipcond.errors import ConfigError, DataError
from clipcond.train.config import TrainConfig
from clipcond.train.data import Pairs

EPOCHS = 5  # where neither steps nor epochs are given
LONGEST_WARMUP = 500  # steps, where none is given


def steps_per_epoch(pairs: Pairs, batch_size: int) -> int:
    """Return the whole batches of an epoch. Raises DataError if there is none."""
    shown = sum(pairs.repeats) if pairs.repeats else len(pairs)
    if shown < batch_size:
        raise DataError(f"batch_size is {batch_size}, but {pairs.source} holds {shown} images for training")
    return shown // batch_size


def lengths(config: TrainConfig, per_epoch: int) -> tuple[int, int]:
    """Return the steps of the whole run and of its warm-up. Raises ConfigError for a warm-up as long as the run."""
    steps = config.steps or max(1, round((config.epochs or EPOCHS) * per_epoch))
    warmup = config.warmup if config.warmup is not None else min(LONGEST_WARMUP, math.ceil(steps / 10), steps - 1)
    if warmup >= steps:
        raise ConfigError(f"warmup is {warmup} steps, the whole run {steps}; expected fewer")
    return steps, warmup
