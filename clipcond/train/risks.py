"""Settings of a run that are known to end badly, or to change nothing: a line each, said before the first step."""

from __future__ import annotations

from clipcond.condition.targets import TARGETS, reading
from clipcond.train.config import TrainConfig
from clipcond.train.rates import collapse


def risks(config: TrainConfig, layers: int, pipeline_layers: int | None = None) -> tuple[str, ...]:
    """Return the lines for a run whose text tower has so many layers, of which pipelines read the first so many."""
    told = collapse(config)
    return (*([told] if told else []), *_unread(config, layers, pipeline_layers))


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
