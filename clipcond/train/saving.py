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
from clipcond.train.shown_pairs import write_pairs


def save(run: Run) -> None:
    """Write a checkpoint; all processes return when it is whole.

    Raises ConfigError, and writes none, if the weights are not finite; OSError where the disk refuses it.
    """
    if run.saved == run.step:
        return
    states = run.ranks.stack(torch.get_rng_state())
    error: Exception | None = None
    if run.ranks.first:
        try:
            _write_checkpoint(run, states)
        except (ConfigError, OSError) as found:
            error = found
    if run.ranks.any(error is not None):  # the others wait here until it is written
        raise error or ConfigError("the first process could not write its checkpoint; its line says why")
    run.saved = run.step


def interrupted(run: Run, kept: str = "") -> TrainResult:
    """End before the last step. kept: what was stored by then, in words."""
    run.say(event="interrupted", **({"kept": kept} if kept else {}))
    return run.result(None, kept)


def finish(run: Run) -> TrainResult:
    """Write the model."""
    if run.ranks.first:
        _write_model(run)
    run.ranks.wait()
    measured = {} if run.retrieval is None else {"retrieval": run.retrieval.to_dict()}
    run.say(event="done", model=str(run.folder.model), **measured)
    return run.result(run.folder.model)


def _write_checkpoint(run: Run, states: Tensor) -> None:
    job = run.job
    checkpoint = Checkpoint(
        step=run.step, cut=run.cut, model=job.model.state_dict(), optimizer=job.optimizer.state_dict(),
        rng=states if len(states) > 1 else states[0], config=job.config.to_dict(),
        average=job.average.state_dict() if job.average else {}, best=run.best.to_dict(), **job.fingerprints,
    )  # fmt: skip
    spare = run.best.step if job.config.keep_best else None
    checkpoints.write(run.folder.checkpoints, checkpoint, keep=job.config.keep, spare=spare)


def _write_model(run: Run) -> None:
    """Write the weights, or their averages, mixed with those of the start where that was asked for; and measure them."""
    job = run.job
    if job.config.keep_best and run.best.step:
        _take_best(run)
    with job.averaged():
        if job.config.alpha is not None:
            run.say(event="note", note=blend(job, job.config.alpha, run.folder.path))
            run.retrieval = None
        if job.measure and run.retrieval is None:  # other weights, or resumed after the last step
            run.retrieval = job.measure()
        if job.measure:
            write_pairs(run.folder.path, job.measure.gallery, job.measure.margins())
        write_open_clip_folder(job.model, job.trainable.config, run.folder.model)
    for stored in job.stores:
        stored.forget()


def _take_best(run: Run) -> None:
    """Put the weights of the best measurement in the place of the last step's."""
    best, job = run.best, run.job
    behind = "" if best.start is None or best.score > best.start else f"; the start had {best.start:.3f}"
    told = f"the model is that of step {best.step}, whose score of {best.score:.3f} is the best{behind}"
    if best.step != run.step:
        path = checkpoints.path_of(run.folder.checkpoints, best.step)
        if not path.is_file():
            run.say(event="note", note=f"{path} is gone, which was the best; the model is that of step {run.step}")
            return
        checkpoint = checkpoints.read(path)
        job.model.load_state_dict(checkpoint.model)
        if job.average is not None:
            job.average.load_state_dict(checkpoint.average)
        run.retrieval = None
    run.say(event="note", note=told)
