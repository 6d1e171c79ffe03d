"""Dashboards of other projects that can watch a run: TensorBoard and Weights & Biases."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clipcond.errors import ConfigError
from clipcond.train.config import TrainConfig
from clipcond.train.run_log import Listener

_LINES = ("loss", "learning_rate", "grad_norm", "logit_bias", "pairs_per_second", "cut_captions")


def check_installed(names: Collection[str]) -> None:
    """Raise ConfigError for a dashboard whose package is not there, with the command that brings it."""
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(f'log_to names {name}, which is not installed: pip install "clipcond[{name}]"')


def dashboards(config: TrainConfig, step: int) -> list[Listener]:
    """Open what `log_to` names. step: the one that the run goes on from; later ones of an earlier attempt are dropped."""
    makers = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
    return [makers[name](config, step) for name in config.log_to]


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of the log that make curves, by names with a slash for each group."""
    found = {name: float(line[name]) for name in _LINES if name in line}
    if "logit_scale" in line:
        found["temperature"] = 1 / line["logit_scale"]
    found |= {f"terms/{name}": value for name, value in line.get("terms", {}).items()}
    for side in ("image_to_text", "text_to_image"):
        found |= {f"{side}/{name}": value for name, value in line.get(side, {}).items()}
    if line.get("event") == "drift":
        found |= {f"drift/{name}": value for name, value in line["measures"].items()}
        found["drift/spread_ratio"] = line["spread_ratio"]
    return found


class TensorBoard(Listener):
    """Writes event files to `OUT/tensorboard`."""

    def __init__(self, config: TrainConfig, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        writer: Any = SummaryWriter
        self._writer = writer(str(Path(config.out) / "tensorboard"), purge_step=step + 1 if step else None)

    def line(self, line: dict[str, Any]) -> None:
        """Write its numbers."""
        for name, value in scalars(line).items():
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WeightsAndBiases(Listener):
    """Sends numbers to wandb, as its own settings say (`WANDB_MODE=offline` keeps them here); one run of it a folder."""

    def __init__(self, config: TrainConfig, step: int) -> None:
        import wandb

        out = Path(config.out).absolute()
        number = hashlib.sha256(str(out).encode("utf-8", "surrogateescape")).hexdigest()[
            :16
        ]  # the same when it goes on
        self._run: Any = wandb.init(
            project="clipcond", name=out.name, id=number, dir=str(out), config=config.to_dict(), resume="allow"
        )

    def line(self, line: dict[str, Any]) -> None:
        """Send its numbers."""
        if numbers := scalars(line):
            self._run.log(numbers, step=line["step"])

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()
