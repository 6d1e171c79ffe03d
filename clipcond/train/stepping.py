"""The steps of a run: its batches in their order, and what each does to the weights."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing

import torch

from clipcond.errors import ConfigError, DataError
from clipcond.train import checkpoints
from clipcond.train.bad_batch import keep_batch
from clipcond.train.batches import Batch
from clipcond.train.losses.temperature import clamp_logit_scale
from clipcond.train.optimizer import learning_rate_at
from clipcond.train.run import Run
from clipcond.train.run_log import Progress, Window, speeds
from clipcond.train.saving import save


def batches(run: Run) -> Iterator[Batch]:
    """Yield the batches left; where one cannot be made, save what was trained so far before its DataError goes on."""
    with closing(run.job.batches.ahead(run.step, run.job.steps)) as ahead:
        while not run.done:
            batch, error = None, None
            try:
                with run.pace.of("data"):
                    batch = next(ahead)
            except DataError as found:
                error = found
            if run.ranks.any(error is not None):
                save(run)
                raise error or DataError("another process could not make its batch; its line says why")
            assert batch is not None
            yield batch


def optimise(run: Run, batch: Batch) -> None:
    """Take one step, or in float16 leave one out whose gradients overflow.

    Raises ConfigError, before it reaches the weights, for a loss that is not finite, and keeps the batch.
    """
    job = run.job
    with run.pace.of("forward_backward"):
        job.optimizer.zero_grad()
        losses = job.objective.backward(batch)
        if job.device.type == "cuda":  # which goes on alone; the norm below would wait for it
            torch.cuda.synchronize(job.device)
    _check_finite("loss", losses.total, run, batch)
    with run.pace.of("step"):
        _take_gradients(run, batch)
    run.step += 1
    run.cut += int(run.ranks.sum(torch.tensor(batch.cut)))
    run.loss = losses.total
    run.window.add(losses, run.pace.take())
    run.log.step(_progress(run))


def _take_gradients(run: Run, batch: Batch) -> None:
    """Sum the gradients up over all processes and take them into the weights, in float16 unless they overflow."""
    job = run.job
    run.ranks.sum_gradients([p for p in job.model.parameters() if p.requires_grad])
    if job.scaling is None:
        _update(run, batch)
    elif not job.scaling.take_step(lambda: _update(run, batch)):
        now = f"the loss is scaled by {job.scaling.scale:g} from now on"
        run.say(event="note", note=f"a step overflowed and is left out; {now}")


def _update(run: Run, batch: Batch) -> None:
    """Change the weights by the gradients, unless they are not finite."""
    job = run.job
    run.grad_norm = float(job.optimizer.clip(job.config.grad_clip))
    _check_finite("gradient's norm", run.grad_norm, run, batch)
    run.learning_rate = learning_rate_at(run.step, job.steps, job.config.learning_rate, job.warmup)
    job.optimizer.step(run.learning_rate)
    clamp_logit_scale(job.model.logit_scale)
    if job.average is not None:
        job.average.update(run.step + 1)


def _progress(run: Run) -> Progress:
    job, pairs, seconds = run.job, run.job.config.batch_size, max(run.pace.total(), 1e-6)
    return Progress(
        step=run.step, steps=job.steps, loss=run.loss or 0.0, learning_rate=run.learning_rate,
        temperature=float((-job.model.logit_scale.detach()).exp()), pairs_per_second=round(pairs / seconds, 1),
        by_stage=run.pace.speeds(pairs), seconds_left=seconds * (job.steps - run.step),
    )  # fmt: skip


def log_progress(run: Run) -> None:
    """Log the mean loss and the speed since the last line."""
    window, now = run.window, time.monotonic()
    batch_size, model = run.job.config.batch_size, run.job.model
    run.say(
        **window.means(), learning_rate=run.learning_rate,
        rate=run.learning_rate,  # the old name, for one version
        grad_norm=round(run.grad_norm, 4), logit_scale=round(float(model.logit_scale.detach().exp()), 3),
        pairs_per_second=round(window.count * batch_size / (now - window.since), 1),
        by_stage=speeds(window.seconds, window.count * batch_size),
        cut_captions=round(run.cut / (run.step * batch_size), 4), **_bias(run),
    )  # fmt: skip
    run.window = Window(now)


def _bias(run: Run) -> dict[str, float]:
    """The bias of the logits, where a sigmoid loss trains one."""
    siglip = run.job.config.loss == "siglip"
    return {"logit_bias": round(float(run.job.model.logit_bias.detach()), 3)} if siglip else {}


def _check_finite(what: str, value: float, run: Run, batch: Batch) -> None:
    if not math.isfinite(value):
        kept = keep_batch(run, batch, what)
        raise ConfigError(
            f"the {what} is {value} at step {run.step + 1}; {checkpoints.last_good(run.folder.checkpoints)}; "
            f"lower the learning rate ({run.job.config.learning_rate:g}), or look at the pairs of this batch in {kept}"
        )
