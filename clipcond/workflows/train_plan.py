"""A run before there is one: its memory, its steps, and what would make it fit. Neither weights nor data are needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipcond.errors import ConfigError, OptionsError
from clipcond.workflows.events import Events, ignore, task
from clipcond.workflows.train import TrainOptions

if TYPE_CHECKING:
    import numpy as np

    from clipcond.train.config import TrainConfig
    from clipcond.train.footprint import Footprint
    from clipcond.train.plan import Memory

_ABSENT = "not given"
_READ = 5000  # pictures whose captions are measured
_SPARE = 0.95  # of a GPU's memory, the rest is its allocator's


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """Settings of a run, of which the model alone is needed.

    gpus: processes with a GPU each; None for one on the CPU, or for one GPU where `gpu_memory`, in GiB, is given.
    images: their number, where there are no data to count. Raises OptionsError.
    """

    settings: Mapping[str, object]
    config: Path | None = None
    gpus: int | None = None
    gpu_memory: float | None = None
    images: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("--gpus", self.gpus), ("--gpu-memory", self.gpu_memory), ("--images", self.images)):
            if value is not None and not 0 < value < float("inf"):
                raise OptionsError(f"{name} is {value}, expected a number above 0")
        if self.config is None and "model" not in self.settings:
            raise OptionsError("give --model, or a CONFIG.toml that names it")

    @property
    def processes(self) -> int:
        """The number of GPUs, 0 for the CPU."""
        return self.gpus or (1 if self.gpu_memory is not None else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainPlan:
    """A run in numbers. steps and the like are None where neither data nor their number is given.

    lengths: how long captions were taken to be. advice: changes that would fit, and what is not counted.
    """

    config: TrainConfig
    footprint: Footprint
    memory: Memory
    gpus: int
    room: float | None
    images: int | None
    steps_per_epoch: int | None
    steps: int | None
    warmup: int | None
    lengths: str
    advice: tuple[str, ...]

    @property
    def fits(self) -> bool | None:
        """True if the peak is within the room that there is; None where that is not known."""
        return None if self.room is None else self.memory.peak <= self.room

    def to_json(self) -> dict[str, Any]:
        """Return the document of `clipcond train --plan --json`; memory in bytes, of each process."""
        found, config = self.footprint, self.config
        return {
            "model": config.model,
            "parameters": {"all": found.parameters, "image": found.image, "text": found.text, "trained": found.trained},
            "batch_size": config.batch_size, "gpus": self.gpus,
            "pairs_a_process": config.batch_size // max(1, self.gpus), "images": self.images,
            "steps_per_epoch": self.steps_per_epoch, "steps": self.steps, "warmup": self.warmup,
            "memory": {name: round(size) for name, size in self.memory.parts().items()},
            "peak": round(self.memory.peak), "room": None if self.room is None else round(self.room), "fits": self.fits,
            "caption_lengths": self.lengths, "advice": list(self.advice),
        }  # fmt: skip


def run(options: PlanOptions, events: Events = ignore) -> TrainPlan:
    """Plan a run. Raises ConfigError, DataError, ModelError."""
    config = _config(options, events)
    gpus = options.processes
    if config.batch_size % max(1, gpus):
        raise ConfigError(f"batch_size is {config.batch_size}, expected a multiple of the {gpus} processes")
    with task(events, "loading torch"):
        from clipcond.train.footprint import footprint
        from clipcond.train.plan import memory_of
    images, lengths, told = _data(config, options.images, events)
    with task(events, f"measuring {config.model} without its weights"):
        found = footprint(config, on_cpu=not gpus)
        if config.grad_cache is not None and found.batch_norm and "image" not in config.frozen:
            raise ConfigError(f"grad_cache does not work with the batch normalisation of {config.model}; leave it out")
        memory = memory_of(config, found, lengths, gpus=gpus)
    room = _room(options)
    per_epoch, steps, warmup = _lengths(config, images)
    return TrainPlan(
        config=config, footprint=found, memory=memory, gpus=gpus, room=room, images=images, steps_per_epoch=per_epoch,
        steps=steps, warmup=warmup, lengths=told, advice=tuple(_advice(config, found, lengths, memory, gpus, room)),
    )  # fmt: skip


def _config(options: PlanOptions, events: Events) -> TrainConfig:
    from clipcond.train.encoders import first_run

    needed = {"data": _ABSENT, "out": _ABSENT}
    settings = options.settings if options.config is not None else {**needed, **options.settings}
    given = first_run({**needed, **TrainOptions(config=options.config, settings=settings).given()})
    if given["data"] != _ABSENT:
        return TrainOptions(settings=given).train_config(events)
    from clipcond.train.config import from_mapping

    return from_mapping(given)


def _data(config: TrainConfig, images: int | None, events: Events) -> tuple[int | None, np.ndarray, str]:
    """Return how many pictures an epoch shows, positions of captions, and a word about where those are from."""
    import numpy as np

    from clipcond.prompt.tokenizer import CONTEXT
    from clipcond.train.caption_checks import captions_of, ids_of
    from clipcond.train.data import read_pairs

    most = config.context_length or CONTEXT
    if config.data == _ABSENT:
        return images, np.array([most]), f"all of {most} positions, the most there are; --data gives the real ones"
    with task(events, f"reading {config.data}"):
        pairs = read_pairs(config.data, max_bad_rows=config.max_bad_rows)
        counts = [min(most, len(row) + 2) for row in ids_of(captions_of(pairs, _READ))]
    count = max(1, len(pairs.shown()) - config.val_count)
    return images or count, np.array(counts), f"as in {config.data}: {np.mean(counts):.0f} positions in the mean"


def _lengths(config: TrainConfig, images: int | None) -> tuple[int | None, int | None, int | None]:
    from clipcond.train.schedule import lengths

    if images is None:
        return (None, *lengths(config, 1)) if config.steps else (None, None, None)
    per_epoch = images // config.batch_size
    if not per_epoch:
        raise ConfigError(f"batch_size is {config.batch_size}, but there are {images} images for training")
    return (per_epoch, *lengths(config, per_epoch))


def _room(options: PlanOptions) -> float | None:
    from clipcond.runtime.memory import machine_memory

    if options.gpu_memory is not None:
        return options.gpu_memory * 2**30 * _SPARE
    return None if options.processes else machine_memory()


def _advice(
    config: TrainConfig, found: Footprint, lengths: np.ndarray, memory: Memory, gpus: int, room: float | None
) -> list[str]:
    from clipcond.train.plan import that_fits

    told = []
    if room is not None and memory.peak > room:
        changes = list(that_fits(config, found, lengths, gpus=gpus, room=room))
        told = [f"--{name.replace('_', '-')} {value} fits: {peak / 2**30:.1f} GiB" for name, value, peak in changes]
        if not told:
            told = ["not even one pair at a time fits; freeze a tower (--lock-image), or take a smaller model"]
    if config.pipeline:
        told.append(f"the denoiser of {config.pipeline} and its gradient are not counted")
    if config.fsdp:
        told.append("fsdp is not counted: blocks, their gradients and moments would be divided among the processes")
    if config.teacher:
        told.append("the teacher is not counted; it is needed before the first step alone")
    return told
