"""The checkpoints of a run, and its end: the model that is written."""

from __future__ import annotations

import torch

from clipcond.errors import ConfigError
from clipcond.models.open_clip_folder import pipeline_layers, write_open_clip_folder, write_open_clip_weights
from clipcond.runtime.devices import device_rng
from clipcond.train import checkpoints
from clipcond.train.blend import blend
from clipcond.train.checkpoints import Checkpoint
from clipcond.train.lora import lora_place, write_lora
from clipcond.train.run import Run, TrainResult
from clipcond.train.shown_pairs import write_pairs


def save(run: Run) -> None:
    """Write a checkpoint; all processes return when it is whole.

    Raises ConfigError, and writes none, if the weights are not finite; OSError where the disk refuses it.
    """
    if run.saved == run.step:
        return
    checkpoint = _checkpoint(run)
    error: Exception | None = None
    if run.ranks.first:
        try:
            spare = run.best.step if run.job.config.keep_best else None
            checkpoints.write(run.folder.checkpoints, checkpoint, keep=run.job.config.keep, spare=spare)
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
    if run.job.config.fsdp:
        _write_divided_model(run)
    elif run.ranks.first:
        _write_model(run)
    run.ranks.wait()
    measured = {} if run.retrieval is None else {"retrieval": run.retrieval.to_dict()}
    run.say(event="done", model=str(run.folder.model), **measured)
    return run.result(run.folder.model)


def _checkpoint(run: Run) -> Checkpoint:
    """Return the state of a run, to which all its processes give their part; the first one has it whole."""
    job, states = run.job, run.ranks.stack(torch.get_rng_state())
    own = device_rng(job.device)
    of_device = run.ranks.stack(own) if len(own) else own[None]
    return Checkpoint(
        step=run.step, cut=run.cut, model=job.state_dict(), optimizer=job.optimizer.state_dict(keep=run.ranks.first),
        rng=states if len(states) > 1 else states[0],
        device_rng=of_device if len(of_device) > 1 else of_device[0], config=job.config.to_dict(),
        average=job.average.state_dict() if job.average else {}, best=run.best.to_dict(),
        scaling=job.scaling.state_dict() if job.scaling else {}, **job.fingerprints,
    )  # fmt: skip


def _write_divided_model(run: Run) -> None:
    """Put the weights together and write them, in the first process; all have a part in it, in measuring too."""
    job = run.job
    if job.config.keep_best and run.best.step:
        _take_best(run)
    if job.measure and run.retrieval is None:
        run.retrieval = job.measure()
    weights = job.state_dict()
    if run.ranks.first:
        write_open_clip_weights(weights, job.trainable.config, run.folder.model)
        _leave_measurements(run)


def _write_model(run: Run) -> None:
    """Write the weights, or their averages, mixed with those of the start where that was asked for; and measure them.

    An adapter is put into them, and written apart.
    """
    job, strength = run.job, 1.0
    if job.config.keep_best and run.best.step:
        _take_best(run)
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
        lora = lora_place(job.model, job.config.target, pipeline_layers(job.trainable.config))
        write_lora(run.folder.lora, factors, lora, strength=strength)
        run.say(event="note", note=f"the adapter is in {run.folder.lora}")
    _leave_measurements(run)


def _leave_measurements(run: Run) -> None:
    """Write what the captions fared, by the last measurement, and take away what was stored for the steps."""
    job = run.job
    if job.measure:
        write_pairs(run.folder.path, job.measure.gallery, job.measure.margins())
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
        job.load_state_dict(checkpoint.model)
        if job.average is not None:
            job.average.load_state_dict(checkpoint.average)
        run.retrieval = None
    run.say(event="note", note=told)
