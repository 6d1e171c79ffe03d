"""Before the first step: going on from a checkpoint, the first lines of the log, and what is stored once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from clipcond.errors import ConfigError
from clipcond.runtime.devices import set_device_rng
from clipcond.train import checkpoints
from clipcond.train.best import Best
from clipcond.train.checkpoints import Checkpoint
from clipcond.train.dashboards import dashboards
from clipcond.train.ranks import Ranks
from clipcond.train.run import Run
from clipcond.train.run_log import Window


def resume(run: Run, allow_changes: bool) -> None:
    """Go on from the last checkpoint, if there is one. Raises ConfigError where that cannot be."""
    saved = checkpoints.existing(run.folder.checkpoints)
    _check_seen(saved, run)
    if not saved:
        return
    path, job = saved[-1], run.job
    checkpoint = checkpoints.read(path)
    if not allow_changes:
        checkpoints.refuse_changes(checkpoint, job.config, where=path, **job.fingerprints)
    if checkpoint.step > job.steps:
        raise ConfigError(f"{path} is past the {job.steps} steps of this run; give more steps, or another out")
    if note := _other_processes(checkpoint, path, run.ranks, allow_changes):
        run.notes.append(note)
    _restore(checkpoint, path, run)
    run.step, run.cut, run.resumed = checkpoint.step, checkpoint.cut, True
    run.best = Best.of(checkpoint.best)


def begin(run: Run) -> None:
    """Write the config and the log's first lines."""
    job = run.job
    if run.ranks.first:
        run.folder.begin(job.config)
    run.say(
        event="resume" if run.resumed else "start", steps=job.steps, steps_per_epoch=job.batches.per_epoch,
        warmup=job.warmup, images=len(job.pairs), captions=sum(map(len, job.pairs.captions)),
        trainable=sum(p.numel() for p in job.model.parameters() if p.requires_grad), device=str(job.device),
        threads=torch.get_num_threads(), processes=run.ranks.count,
    )  # fmt: skip
    if run.ranks.first:
        for dashboard in dashboards(job.config, run.step):
            run.log.add(dashboard)
    for note in run.notes:
        run.say(event="note", note=note)
    run.window = Window()


def store(run: Run) -> str:
    """Compute what frozen modules make of the pairs, once; return what was kept, in words, where a signal ends that."""
    for stored in run.job.stores:
        run.log.phase(f"storing {stored.what}")
        since = time.monotonic()
        if not run.ranks.first:
            run.ranks.wait()  # until the first has written what all can read
        try:
            size = stored.fill()
        except KeyboardInterrupt:
            if run.ranks.count > 1 or not stored.kept:
                raise
            return f"{stored.what}: {stored.kept} rows"
        if run.ranks.first:
            run.ranks.wait()
        text = f"{stored.what} of {len(run.job.pairs)} pictures stored: {size / 2**20:.1f} MiB"
        run.say(event="note", note=f"{text} in {time.monotonic() - since:.0f} s")
    run.window = Window()
    return ""


def _check_seen(saved: list[Path], run: Run) -> None:
    """Raise ConfigError where the processes do not see the same checkpoints."""
    names = torch.tensor([len(saved), sum(map(ord, saved[-1].name)) if saved else 0])
    seen = run.ranks.stack(names)
    if bool((seen != seen[0]).any()):
        raise ConfigError(f"the processes see different checkpoints in {run.folder.path}; it must be shared by all")


def _other_processes(checkpoint: Checkpoint, path: Path, ranks: Ranks, allow_changes: bool) -> str:
    """Return a note where another number of processes made the checkpoint. Raises ConfigError unless that is allowed."""
    made, now = checkpoint.processes, ranks.count
    if made == now:
        return ""
    if not allow_changes:
        raise ConfigError(
            f"{path} was made by {made} {'processes' if made > 1 else 'process'}, this run has {now}; start as many, "
            "or allow the change (--allow-changes, allow_changes=True)"
        )
    return f"{now} in place of {made} processes: random numbers start anew"


def _restore(checkpoint: Checkpoint, path: Path, run: Run) -> None:
    job = run.job
    frozen, now = _trained(checkpoint.config), _trained(job.config.to_dict())
    try:
        job.load_state_dict(checkpoint.model)
        if frozen == now:
            job.optimizer.load_state_dict(checkpoint.optimizer)
        if job.average is not None:
            job.average.load_state_dict(checkpoint.average or checkpoint.model)
        if job.scaling is not None and checkpoint.scaling:
            job.scaling.load_state_dict(checkpoint.scaling)
        if checkpoint.processes == run.ranks.count:
            torch.set_rng_state(checkpoint.rng_of(run.ranks.rank))
            set_device_rng(job.device, checkpoint.device_rng_of(run.ranks.rank))
    except Exception as error:  # whatever torch says of tensors that do not fit
        raise ConfigError(
            f"{path} does not fit the model {job.config.model}: it is of another architecture, or damaged; "
            "choose another out"
        ) from error
    if frozen != now:
        run.notes.append(f"what trains is {now}, it was {frozen}: the optimizer's moments start anew")


def _trained(settings: Mapping[str, Any]) -> str:
    """The settings that say what trains, in words: optimizers of runs where they differ do not fit."""
    if settings.get("lora_rank") is not None:
        return f"an adapter of rank {settings['lora_rank']} on {' and '.join(settings['lora_targets'])}"
    frozen = sorted({*settings.get("freeze", ()), *(["image"] if settings.get("lock_image") else [])})
    if settings.get("train_blocks") is not None:
        frozen.append(f"the text tower below its last {settings['train_blocks']} blocks")
    rows = "" if settings.get("unseen_rate") is None else ", unseen rows apart"
    rows += ", in shares" if settings.get("fsdp") else ""
    return f"all but {' and '.join(frozen)}{rows}" if frozen else f"everything{rows}"
