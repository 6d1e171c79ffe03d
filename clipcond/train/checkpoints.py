"""Step checkpoints: written complete or not at all, the last few kept, refused by a run with other settings."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from clipcond.errors import ClipCondError, ConfigError
from clipcond.files import writing
from clipcond.train.best import Best
from clipcond.train.config import RESUME_MAY_CHANGE, TrainConfig, renamed
from clipcond.train.model import not_finite

_NAME = re.compile(r"step-(\d+)\.pt")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """Everything that a run needs to go on as if it had never stopped.

    cut: captions cut so far. rng: the state of torch's generator, (S,) uint8, or (N, S) of N processes. data, pictures:
    fingerprints of the index and of the pictures; pictures is empty in checkpoints of an earlier version. average: of the
    weights, empty where the run keeps none. best: the record of the best measurement, empty in those of an earlier version.
    base: the fingerprint of the weights under an adapter, which is then all that `model` holds; empty without one.
    scaling: of the loss, in float16. device_rng: as rng, of the generator of a GPU; empty on a CPU and in checkpoints of an
    earlier version.
    """

    step: int
    cut: int
    model: dict[str, Tensor]
    optimizer: list[dict[str, Any]]
    rng: Tensor
    config: dict[str, Any]
    data: str
    pictures: str
    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    base: str = ""
    scaling: dict[str, float] = field(default_factory=dict)
    device_rng: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))

    @property
    def processes(self) -> int:
        """The number of processes that made it."""
        return len(self.rng) if self.rng.ndim == 2 else 1

    def rng_of(self, rank: int) -> Tensor:
        """Return the generator's state of a process, (S,) uint8."""
        return _of_process(self.rng, rank)

    def device_rng_of(self, rank: int) -> Tensor:
        """Return the state of the generator of a process's GPU, (S,) uint8; empty where none is known."""
        return _of_process(self.device_rng, rank)


def _of_process(states: Tensor, rank: int) -> Tensor:
    return states[rank].clone() if states.ndim == 2 else states  # torch reads a view's storage from its start


def path_of(folder: Path, step: int) -> Path:
    """Return the place of the checkpoint of a step."""
    return folder / f"step-{step:08d}.pt"


def write(folder: Path, checkpoint: Checkpoint, *, keep: int, spare: int | None = None) -> Path:
    """Write `step-00001000.pt` of a checkpoint, then delete all but the last `keep` and that of step `spare`.

    Raises ConfigError for weights that are not finite: what is kept can always be gone on from.
    """
    if name := _not_finite(checkpoint):
        raise ConfigError(
            f"the weights are not finite after step {checkpoint.step} ({name}); {last_good(folder)}; "
            f"lower the learning rate ({checkpoint.config['learning_rate']:g})"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(folder, checkpoint.step)
    state = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    state["config"] = json.dumps(checkpoint.config)
    with writing(path, overwrite=True, durable=True) as file:
        _save(state, file)
    for old in existing(folder)[:-keep]:
        if _step_of(old) != spare:
            old.unlink()
    return path


class _Sink:
    """A file that remembers why it could not be written: torch says only that it could not."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _save(state: dict[str, Any], file: BinaryIO) -> None:
    sink: Any = _Sink(file)
    try:
        torch.save(state, sink)
    except Exception:
        if sink.error is not None:
            raise sink.error from None
        raise


def existing(folder: Path) -> list[Path]:
    """Return the complete checkpoints, oldest first."""
    found = {path: _NAME.fullmatch(path.name) for path in folder.glob("step-*.pt")}
    return sorted((path for path, match in found.items() if match), key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.name[len("step-") : -len(".pt")])


def last_good(folder: Path) -> str:
    """Say which checkpoint is the last that can be gone on from."""
    for path in reversed(existing(folder)):
        try:
            read(path)
        except ClipCondError:
            continue
        return f"the last good checkpoint is {path}"
    return "there is no checkpoint yet"


def read(path: Path) -> Checkpoint:
    """Read a checkpoint to the CPU. Raises ConfigError if it is damaged, or holds what no run writes."""
    advice = "delete it to go on from the one before"
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn file shows as anything from EOFError to a pickle error
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}); {advice}") from error
    try:
        checkpoint = _checked(state, path)
        name = _not_finite(checkpoint)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is no checkpoint of a run ({error}); {advice}") from error
    if name:
        raise ConfigError(f"{path} holds weights that are not finite ({name}); {advice}")
    return checkpoint


def _checked(state: Any, path: Path) -> Checkpoint:
    """Return the checkpoint that a file holds. Raises TypeError, ValueError or KeyError for anything that does not fit."""
    if not isinstance(state, dict):
        raise TypeError("it holds no record")
    kinds = {"step": int, "cut": int, "model": dict, "optimizer": list, "rng": Tensor, "config": str, "data": str}
    for name, kind in kinds.items():
        if not isinstance(state.get(name), kind):
            raise TypeError(f"its {name} is no {kind.__name__}")
    if state["step"] != _step_of(path) or state["cut"] < 0:
        raise ValueError(f"it says step {state['step']}, {state['cut']} captions cut")
    average, best, scaling = state.get("average", {}), state.get("best", {}), state.get("scaling", {})
    device_rng = state.get("device_rng", torch.empty(0, dtype=torch.uint8))
    if not isinstance(device_rng, Tensor):
        raise TypeError("its device_rng is no Tensor")
    if not all(isinstance(each, dict) for each in (average, best, scaling)):
        raise TypeError("its average, its best or its scaling is no dict")
    Best.of(best)
    if not all(isinstance(value, Tensor) for value in (*state["model"].values(), *average.values())):
        raise TypeError("its model holds more than tensors")
    config = json.loads(state["config"])
    if not isinstance(config, dict):
        raise TypeError("its config is no record")
    return Checkpoint(**{name: state[name] for name in kinds if name != "config"},
                      config=renamed(config), pictures=str(state.get("pictures", "")), average=average, best=best,
                      base=str(state.get("base", "")), scaling=scaling, device_rng=device_rng)  # fmt: skip


def _not_finite(checkpoint: Checkpoint) -> str | None:
    """Return the name of the first weight, or of the first moment of the optimizer, that is not finite."""
    moments = {
        f"the optimizer's {name} {index}.{number}": value
        for index, part in enumerate(checkpoint.optimizer)
        for number, state in part["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
    return not_finite(checkpoint.model) or not_finite(checkpoint.average) or not_finite(moments)


def refuse_changes(
    saved: Checkpoint, config: TrainConfig, *, data: str, pictures: str, base: str = "", where: Path
) -> None:
    """Raise ConfigError if a setting that decides the weights, or the data, or what is under an adapter is not what it was."""
    now, then = json.loads(json.dumps(config.to_dict())), saved.config
    fixed = (name for name in now if name not in RESUME_MAY_CHANGE and then.get(name, now[name]) != now[name])
    changed = [f"{name} {then[name]!r} → {now[name]!r}" for name in fixed]
    if saved.data != data:
        changed.append("the content of the training data")
    elif saved.pictures not in ("", pictures):
        changed.append("the content of the training pictures")
    if base and saved.base and saved.base != base:
        changed.append(f"the weights of {config.model}")
    if changed:
        raise ConfigError(
            f"{where} was made with other settings: {'; '.join(changed)}. Choose another out, or allow the change "
            "(--allow-changes, allow_changes=True)"
        )
