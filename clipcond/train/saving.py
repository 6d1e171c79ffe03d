"""The checkpoints of a run, and its end: the model that is written."""

from __future__ import annotations

import torch

from clipcond.errors import ConfigError
from clipcond.models.open_clip_folder import pipeline_layers, write_open_clip_folder, write_open_clip_weights
from clipcond.train import checkpoints
from clipcond.train.blend import blend
from clipcond.train.checkpoints import Checkpoint
from clipcond.train.lora import lora_place, write_lora
from clipcond.train.run import Run, TrainResult


def save(run: Run) -> None:
    """Write a checkpoint; all processes return when it is whole.

    Raises ConfigError, and writes none, if the weights are not finite; OSError where the disk refuses it.
    """
    checkpoint = _checkpoint(run)
    error: Exception | None = None
    if run.ranks.first:
        try:
            checkpoints.write(run.folder.checkpoints, checkpoint, keep=run.job.config.keep)
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
    if run.job.config.fsdp:
        _write_divided_model(run)
    elif run.ranks.first:
        _write_model(run)
    run.ranks.wait()
    run.say(event="done", model=str(run.folder.model))
    return run.result(run.folder.model)


def _checkpoint(run: Run) -> Checkpoint:
    """Return the state of a run, to which all its processes give their part; the first one has it whole."""
    job, states = run.job, run.ranks.stack(torch.get_rng_state())
    return Checkpoint(
        step=run.step, cut=run.cut, model=job.state_dict(), optimizer=job.optimizer.state_dict(keep=run.ranks.first),
        rng=states if len(states) > 1 else states[0], config=job.config.to_dict(),
        average=job.average.state_dict() if job.average else {}, scaling=job.scaling.state_dict() if job.scaling else {},
        **job.fingerprints,
    )  # fmt: skip


def _write_divided_model(run: Run) -> None:
    """Put the weights together and write them, in the first process; all have a part in it, in measuring too."""
    job = run.job
    if job.measure and run.retrieval is None:
        run.retrieval = job.measure()
    weights = job.state_dict()
    if run.ranks.first:
        write_open_clip_weights(weights, job.trainable.config, run.folder.model)


def _write_model(run: Run) -> None:
    """Write the weights, or their averages, mixed with those of the start where that was asked for; and measure them.

    An adapter is put into them, and written apart.
    """
    job, strength = run.job, 1.0
    with job.averaged():
        factors = None if job.adapter is None else job.adapter.merge()
        if job.config.alpha is not None:
            strength, outcome = blend(job, job.config.alpha, run.folder.path)
            run.say(event="note", note=outcome)
            run.retrieval = None
        if job.measure and run.retrieval is None:  # other weights, or resumed after the last step
            run.retrieval = job.measure()
        write_open_clip_folder(job.model, job.trainable.config, run.folder.model)
    if factors is not None:
        place = lora_place(job.model, job.config.target, pipeline_layers(job.trainable.config))
        write_lora(run.folder.lora, factors, place, strength=strength)
        run.say(event="note", note=f"the adapter is in {run.folder.lora}")
