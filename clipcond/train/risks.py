"""Settings of a run that are known to end badly, or to change nothing: a line each, said before the first step."""

from __future__ import annotations

from clipcond.condition.targets import TARGETS, reading
from clipcond.train.config import TrainConfig

COLLAPSE = 1e-4  # a learning rate; see docs/training.md
ADAPTER_LEAST = 5e-5  # of adapters, which usually train at 1e-4 to 1e-3


def risks(config: TrainConfig, layers: int, pipeline_layers: int | None = None) -> tuple[str, ...]:
    """Return the lines for a run whose text tower has so many layers, of which pipelines read the first so many."""
    return (*_collapse(config), *_unread(config, layers, pipeline_layers))


def _collapse(config: TrainConfig) -> tuple[str, ...]:
    """Say it where the learning rate is one at which pretrained towers are known to collapse, or an adapter to stand still."""
    towers = [part for part in ("text", "image") if part not in config.frozen]
    if config.lora_rank is not None:
        if config.learning_rate >= ADAPTER_LEAST:
            return ()
        return (f"learning_rate is {config.learning_rate:g}: adapters usually train at 1e-4 to 1e-3",)
    if config.init == "random" or not towers or config.learning_rate < COLLAPSE:
        return ()
    return (
        f"learning_rate is {config.learning_rate:g}: at {COLLAPSE:g} and above, fine-tuning has collapsed pretrained towers; "
        "1e-6 to 1e-5 is usual",
    )


def _unread(config: TrainConfig, layers: int, pipeline_layers: int | None) -> tuple[str, ...]:
    """Say it where what trains of the text tower is nothing that the target reads."""
    if config.target is None or (config.train_blocks is None and "text" not in config.freeze):
        return ()
    read = reading(*TARGETS[config.target], layers=layers, pipeline_layers=pipeline_layers)
    trains = config.train_blocks or 0
    if not read.states or trains > read.skip or config.unseen_rate is not None:
        return ()
    pooled = f"; its {read.pooled} vector alone moves" if read.pooled else ""
    part = f"train_blocks is {trains}" if trains else "the text trunk is frozen"
    layer = "the last layer" if read.skip == 0 else f"the layer {read.skip} below the last"
    return (f"{config.target} reads the states of {layer}, and {part}: they stay as they are{pooled}",)
