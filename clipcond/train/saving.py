"""The checkpoints of a run, and its end: the model that is written."""

from __future__ import annotations

import torch
from torch import Tensor

from clipcond.errors import ConfigError
from clipcond.models.open_clip_folder import write_open_clip_folder
from clipcond.train import checkpoints
from clipcond.train.blend import blend
from clipcond.train.checkpoints import Checkpoint
from clipcond.train.run import Run, TrainResult


def save(run: Run) -> None:
    """Write a checkpoint; all processes return when it is whole.

    Raises ConfigError, and writes none, if the weights are not finite; OSError where the disk refuses it.
    """
    states = run.ranks.stack(torch.get_rng_state())
    error: Exception | None = None
    if run.ranks.first:
        try:
            _write_checkpoint(run, states)
        except (ConfigError, OSError) as found:
            error = found
    if run.ranks.any(error is not None):  # the others wait here until it is written
        raise error or ConfigError("the first process could not write its checkpoint; its line says why")


def interrupted(run: Run) -> TrainResult:
    """End before the last step."""
    run.say(event="interrupted")
    return run.result(None)


def finish(run: Run) -> TrainResult:
    """Write the model."""
    if run.ranks.first:
        _write_model(run)
    run.ranks.wait()
    run.say(event="done", model=str(run.folder.model))
    return run.result(run.folder.model)


def _write_checkpoint(run: Run, states: Tensor) -> None:
    job = run.job
    checkpoint = Checkpoint(
        step=run.step, cut=run.cut, model=job.model.state_dict(), optimizer=job.optimizer.state_dict(),
        rng=states if len(states) > 1 else states[0], config=job.config.to_dict(),
        average=job.average.state_dict() if job.average else {}, **job.fingerprints,
    )  # fmt: skip
    checkpoints.write(run.folder.checkpoints, checkpoint, keep=job.config.keep)


def _write_model(run: Run) -> None:
    """Write the weights, or their averages, mixed with those of the start where that was asked for; and measure them."""
    job = run.job
    with job.averaged():
        if job.config.alpha is not None:
            run.say(event="note", note=blend(job, job.config.alpha, run.folder.path))
            run.retrieval = None
        if job.measure and run.retrieval is None:  # other weights, or resumed after the last step
            run.retrieval = job.measure()
        write_open_clip_folder(job.model, job.trainable.config, run.folder.model)
