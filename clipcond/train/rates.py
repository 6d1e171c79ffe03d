"""Learning rates that are known to end badly."""

from __future__ import annotations

from clipcond.train.config import TrainConfig

COLLAPSE = 1e-4  # a learning rate; see docs/training.md


def collapse(config: TrainConfig) -> str:
    """Say it where the learning rate is one at which pretrained towers have collapsed; empty where it is not."""
    towers = [part for part in ("text", "image") if part not in config.frozen]
    if config.init == "random" or not towers or config.learning_rate < COLLAPSE:
        return ""
    return (
        f"learning_rate is {config.learning_rate:g}: at {COLLAPSE:g} and above, fine-tuning has collapsed pretrained towers; "
        "1e-6 to 1e-5 is usual"
    )
