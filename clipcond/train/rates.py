"""Learning rates that are known to end badly."""

from __future__ import annotations

from clipcond.train.config import TrainConfig

COLLAPSE = 1e-4  # a learning rate; see docs/training.md
ADAPTER_LEAST = 5e-5  # of adapters, which usually train at 1e-4 to 1e-3


def collapse(config: TrainConfig) -> str:
    """Say it where pretrained towers have collapsed at the learning rate, or an adapter would stand still; empty where not."""
    if config.lora_rank is not None:
        low = config.learning_rate < ADAPTER_LEAST
        return f"learning_rate is {config.learning_rate:g}: adapters usually train at 1e-4 to 1e-3" if low else ""
    towers = [part for part in ("text", "image") if part not in config.frozen]
    if config.init == "random" or not towers or config.learning_rate < COLLAPSE:
        return ""
    return (
        f"learning_rate is {config.learning_rate:g}: at {COLLAPSE:g} and above, fine-tuning has collapsed pretrained towers; "
        "1e-6 to 1e-5 is usual"
    )
