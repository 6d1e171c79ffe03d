"""Step checkpoints: written complete or not at all, the last few kept, refused by a run with other settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from clipcond.errors import ConfigError
from clipcond.files import writing
from clipcond.train.config import RESUME_MAY_CHANGE, TrainConfig


def write(folder: Path, state: dict[str, Any], *, keep: int) -> Path:
    """Write `step-00001000.pt` for `state["step"]`, then delete all but the last `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{state['step']:08d}.pt"
    with writing(path, overwrite=True, durable=True) as file:
        torch.save(state, file)
    for old in existing(folder)[:-keep]:
        old.unlink()
    return path


def existing(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's state on the CPU. Raises ConfigError if the file is damaged."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn file shows as anything from EOFError to a pickle error
        raise ConfigError(
            f"{path} cannot be read ({type(error).__name__}); delete it to go on from the one before"
        ) from error
    return state


def refuse_changes(saved: dict[str, Any], config: TrainConfig, data: str, *, where: Path) -> None:
    """Raise ConfigError if a setting that decides the weights, or the data, is not what the checkpoint knows."""
    now, then = json.loads(json.dumps(config.to_dict())), json.loads(saved["config"])
    fixed = (name for name in now if name not in RESUME_MAY_CHANGE and then.get(name, now[name]) != now[name])
    changed = [f"{name} {then[name]!r} → {now[name]!r}" for name in fixed]
    if saved["data"] != data:
        changed.append("the content of the training data")
    if changed:
        raise ConfigError(
            f"{where} was made with other settings: {'; '.join(changed)}. Choose another out, or allow the change "
            "(--allow-changes, allow_changes=True)"
        )
