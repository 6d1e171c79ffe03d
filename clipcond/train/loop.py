"""The training loop, read from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipcond.errors import ConfigError, DataError
from clipcond.models.open_clip_folder import write_open_clip_folder
from clipcond.score.retrieval import Retrieval
from clipcond.train import checkpoints
from clipcond.train.batches import Batch, Batches
from clipcond.train.blend import blend
from clipcond.train.checkpoints import Checkpoint
from clipcond.train.config import TrainConfig
from clipcond.train.denoising import Denoiser
from clipcond.train.job import Job, prepare
from clipcond.train.losses.temperature import clamp_logit_scale
from clipcond.train.objective import Losses
from clipcond.train.optimizer import learning_rate_at
from clipcond.train.ranks import Ranks, launched_ranks
from clipcond.train.run_folder import RunFolder, held
from clipcond.train.signals import stop_signals

__all__ = ["Batches", "Report", "TrainResult", "train"]

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The outcome of a run. `model` is None, and `interrupted` true, if a signal ended it before its last step.

    rank: of several processes the one that returns this; the first alone knows the retrieval.
    """

    steps: int
    loss: float | None
    retrieval: Retrieval | None
    model: Path | None
    interrupted: bool
    rank: int = 0


def train(
    config: TrainConfig, *, report: Report | None = None, allow_changes: bool = False, denoiser: Denoiser | None = None
) -> TrainResult:
    """Train both towers, or what `config.freeze` leaves of them, and write them to `out/model`, an open_clip folder.

    Goes on from the last checkpoint in `out/checkpoints`, in mid-epoch too: on a CPU with the same number of threads
    the weights are those of a run that was never interrupted, bit for bit. SIGINT and SIGTERM finish the step, save and
    return; before the first step they raise KeyboardInterrupt. Every log line goes to `out/log.jsonl` and to `report`.

    Under `torchrun` the processes share each batch; the first of them holds the folder, logs and reports.

    allow_changes: resume even if settings or data differ from the checkpoint's.   denoiser: of `config.pipeline`, where the
    run has a denoising loss, as `clipcond.diffusion.denoising_loss` loads it.
    Raises DataError and ModelError before the first step, OutputExists if another process trains in `out`, or if it
    holds a model or a config that this run did not write, ConfigError for a refused resumption or a loss that is not
    finite. A picture that turns out unreadable on the way is a DataError after saving.
    """
    with stop_signals() as signals, launched_ranks() as ranks, _held(Path(config.out), ranks) as folder:
        run = _Run(prepare(config, denoiser, ranks), folder, report)
        run.resume(allow_changes)
        run.start()
        run.store()
        signals.defer()
        for batch in run.batches():
            run.optimise(batch)
            if run.due(config.log_every):
                run.log_progress()
            if run.due(config.eval_every):
                run.evaluate()
            stopping = ranks.any(signals.came)
            if run.due(config.save_every) or stopping:
                run.save()
            if stopping and not run.done:
                return run.interrupted()
        return run.finish()


@contextmanager
def _held(path: Path, ranks: Ranks) -> Iterator[RunFolder]:
    """Hold the run's folder for the first of its processes; the others only read in it."""
    if not ranks.first:
        yield RunFolder(path)
        return
    with held(path) as folder:
        folder.refuse_foreign()
        yield folder


@dataclass(slots=True)
class _Window:
    """Losses since the last line of the log."""

    since: float
    count: int = 0
    loss: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)

    def add(self, losses: Losses) -> None:
        """Take in a step."""
        self.count += 1
        self.loss += losses.total
        for name, value in losses.terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value

    def means(self) -> dict[str, Any]:
        """Return the mean loss and, by name, the mean of each term before its weight."""
        terms = {name: round(value / self.count, 5) for name, value in self.terms.items()}
        return {"loss": round(self.loss / self.count, 5), "terms": terms}


class _Run:
    """A job under way: how far it is, and the folder and the listener that hear of it."""

    def __init__(self, job: Job, folder: RunFolder, report: Report | None) -> None:
        self.job, self.folder, self._report, self.ranks = job, folder, report, job.ranks
        self.step, self.cut = 0, 0
        self.loss: float | None = None
        self.grad_norm, self.learning_rate = 0.0, 0.0
        self.retrieval: Retrieval | None = None
        self._resumed = False
        self._notes = list(job.notes)
        self._window = _Window(time.monotonic())

    @property
    def done(self) -> bool:
        """True after the last step."""
        return self.step >= self.job.steps

    def due(self, every: int) -> bool:
        """True after each `every` steps, and after the last."""
        return self.step % every == 0 or self.done

    # ── before the first step ────────────────────────────────────────────────────────────────────────────────────────

    def resume(self, allow_changes: bool) -> None:
        """Go on from the last checkpoint, if there is one. Raises ConfigError where that cannot be."""
        saved = checkpoints.existing(self.folder.checkpoints)
        self._check_seen(saved)
        if not saved:
            return
        path, job = saved[-1], self.job
        checkpoint = checkpoints.read(path)
        if not allow_changes:
            checkpoints.refuse_changes(checkpoint, job.config, where=path, **job.fingerprints)
        if checkpoint.step > job.steps:
            raise ConfigError(f"{path} is past the {job.steps} steps of this run; give more steps, or another out")
        self._check_processes(checkpoint, path, allow_changes)
        self._restore(checkpoint, path)
        self.step, self.cut, self._resumed = checkpoint.step, checkpoint.cut, True

    def _check_seen(self, saved: list[Path]) -> None:
        """Raise ConfigError where the processes do not see the same checkpoints."""
        names = torch.tensor([len(saved), sum(map(ord, saved[-1].name)) if saved else 0])
        seen = self.ranks.stack(names)
        if bool((seen != seen[0]).any()):
            raise ConfigError(
                f"the processes see different checkpoints in {self.folder.path}; it must be shared by all"
            )

    def _check_processes(self, checkpoint: Checkpoint, path: Path, allow_changes: bool) -> None:
        """Raise ConfigError where another number of processes made the checkpoint, unless that is allowed."""
        made, now = checkpoint.processes, self.ranks.count
        if made == now:
            return
        if not allow_changes:
            raise ConfigError(
                f"{path} was made by {made} {'processes' if made > 1 else 'process'}, this run has {now}; start as many, "
                "or allow the change (--allow-changes, allow_changes=True)"
            )
        self._notes.append(f"{now} in place of {made} processes: random numbers start anew")

    def _restore(self, checkpoint: Checkpoint, path: Path) -> None:
        job = self.job
        frozen, now = _trained(checkpoint.config), _trained(job.config.to_dict())
        try:
            job.model.load_state_dict(checkpoint.model)
            if frozen == now:
                job.optimizer.load_state_dict(checkpoint.optimizer)
            if job.average is not None:
                job.average.load_state_dict(checkpoint.average or checkpoint.model)
            if checkpoint.processes == self.ranks.count:
                torch.set_rng_state(checkpoint.rng_of(self.ranks.rank))
        except Exception as error:  # whatever torch says of tensors that do not fit
            raise ConfigError(
                f"{path} does not fit the model {job.config.model}: it is of another architecture, or damaged; "
                "choose another out"
            ) from error
        if frozen != now:
            self._notes.append(f"what trains is {now}, it was {frozen}: the optimizer's moments start anew")

    def start(self) -> None:
        """Write the config and the log's first lines."""
        job = self.job
        if self.ranks.first:
            self.folder.begin(job.config)
        self._log(
            event="resume" if self._resumed else "start", steps=job.steps, steps_per_epoch=job.batches.per_epoch,
            warmup=job.warmup, images=len(job.pairs), captions=sum(map(len, job.pairs.captions)),
            trainable=sum(p.numel() for p in job.model.parameters() if p.requires_grad), device=str(job.device),
            threads=torch.get_num_threads(), processes=self.ranks.count,
        )  # fmt: skip
        for note in self._notes:
            self._log(event="note", note=note)
        self._window = _Window(time.monotonic())

    def store(self) -> None:
        """Compute what frozen modules make of the pairs, once."""
        for stored in self.job.stores:
            since = time.monotonic()
            if not self.ranks.first:
                self.ranks.wait()  # until the first has written what all can read
            size = stored.fill()
            if self.ranks.first:
                self.ranks.wait()
            text = f"{stored.what} of {len(self.job.pairs)} pictures stored: {size / 2**20:.1f} MiB"
            self._log(event="note", note=f"{text} in {time.monotonic() - since:.0f} s")
        self._window = _Window(time.monotonic())

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def batches(self) -> Iterator[Batch]:
        """Yield the batches left; where one cannot be made, save what was trained so far before its DataError goes on."""
        with closing(self.job.batches.ahead(self.step, self.job.steps)) as ahead:
            while not self.done:
                batch, error = None, None
                try:
                    batch = next(ahead)
                except DataError as found:
                    error = found
                if self.ranks.any(error is not None):
                    self.save()
                    raise error or DataError("another process could not make its batch; its line says why")
                assert batch is not None
                yield batch

    def optimise(self, batch: Batch) -> None:
        """Take one step. Raises ConfigError, before it reaches the weights, for a loss that is not finite."""
        job = self.job
        job.optimizer.zero_grad()
        losses = job.objective.backward(batch)
        self._check_finite("loss", losses.total)
        self.ranks.sum_gradients([p for p in job.model.parameters() if p.requires_grad])
        self.grad_norm = float(job.optimizer.clip(job.config.grad_clip))
        self._check_finite("gradient's norm", self.grad_norm)
        self.learning_rate = learning_rate_at(self.step, job.steps, job.config.learning_rate, job.warmup)
        job.optimizer.step(self.learning_rate)
        clamp_logit_scale(job.model.logit_scale)
        if job.average is not None:
            job.average.update(self.step + 1)

        self.step += 1
        self.cut += int(self.ranks.sum(torch.tensor(batch.cut)))
        self.loss = losses.total
        self._window.add(losses)

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise ConfigError(
                f"the {what} is {value} at step {self.step + 1}; {checkpoints.last_good(self.folder.checkpoints)}; "
                f"lower the learning rate ({self.job.config.learning_rate:g})"
            )

    def evaluate(self) -> None:
        """Measure retrieval on the held-out pairs, if there are any, and the drift on general prompts, if it counts.

        Raises ConfigError, after saving, where the drift is beyond `max_drift`.
        """
        problem = self._measure() if self.ranks.first else ""
        if self.ranks.any(bool(problem)):
            self.save()
            raise ConfigError(
                problem or f"the general prompts collapsed by step {self.step}; the first process says how"
            )

    def _measure(self) -> str:
        """Measure and log; return why the run should end, in a line, empty where it should not."""
        with self.job.averaged():
            self.retrieval = self.job.measure() if self.job.measure else None
            drift = self.job.retention.measure() if self.job.retention else None
        if self.retrieval is not None:
            self._log(event="evaluation", **self.retrieval.to_dict())
        if not self._window.count:
            self._window.since = time.monotonic()
        if drift is None:
            return ""
        measures = {name: round(value, 6) for name, value in drift.measures().items()}
        self._log(event="drift", spread_ratio=round(drift.spread_ratio, 4), measures=measures)
        return self._collapse(measures, drift.spread_ratio)

    def _collapse(self, measures: Mapping[str, float], spread_ratio: float) -> str:
        config, name = self.job.config, "words" if "words" in measures else "pooled"
        found = {f"1 - cosine of their {name}": measures[name], "their loss of spread": 1 - spread_ratio}
        beyond = [f"{what} is {value:.2f}" for what, value in found.items() if not value <= config.max_drift]
        if not beyond:
            return ""
        return (
            f"the general prompts collapsed by step {self.step}: {beyond[0]}, max_drift is {config.max_drift:g}; what was "
            f"trained is in {self.folder.checkpoints}, from where a higher max_drift goes on; better, begin anew with a "
            f"learning rate below {config.learning_rate:g} or a retention above {config.retention:g}"
        )

    def save(self) -> None:
        """Write a checkpoint; all processes return when it is whole.

        Raises ConfigError, and writes none, if the weights are not finite; OSError where the disk refuses it.
        """
        states = self.ranks.stack(torch.get_rng_state())
        error: Exception | None = None
        if self.ranks.first:
            try:
                self._write_checkpoint(states)
            except (ConfigError, OSError) as found:
                error = found
        if self.ranks.any(error is not None):  # the others wait here until it is written
            raise error or ConfigError("the first process could not write its checkpoint; its line says why")

    def _write_checkpoint(self, states: Tensor) -> None:
        job = self.job
        checkpoint = Checkpoint(
            step=self.step, cut=self.cut, model=job.model.state_dict(), optimizer=job.optimizer.state_dict(),
            rng=states if len(states) > 1 else states[0], config=job.config.to_dict(),
            average=job.average.state_dict() if job.average else {}, **job.fingerprints,
        )  # fmt: skip
        checkpoints.write(self.folder.checkpoints, checkpoint, keep=job.config.keep)

    # ── the log and the end ──────────────────────────────────────────────────────────────────────────────────────────

    def log_progress(self) -> None:
        """Log the mean loss and the speed since the last line."""
        window, now = self._window, time.monotonic()
        batch_size, model = self.job.config.batch_size, self.job.model
        self._log(
            **window.means(), learning_rate=self.learning_rate,
            rate=self.learning_rate,  # the old name, for one version
            grad_norm=round(self.grad_norm, 4), logit_scale=round(float(model.logit_scale.detach().exp()), 3),
            pairs_per_second=round(window.count * batch_size / (now - window.since), 1),
            cut_captions=round(self.cut / (self.step * batch_size), 4), **self._bias(),
        )  # fmt: skip
        self._window = _Window(now)

    def _bias(self) -> dict[str, float]:
        """The bias of the logits, where a sigmoid loss trains one."""
        siglip = self.job.config.loss == "siglip"
        return {"logit_bias": round(float(self.job.model.logit_bias.detach()), 3)} if siglip else {}

    def _log(self, **values: Any) -> None:
        if not self.ranks.first:
            return
        line = {"step": self.step, "time": round(time.time(), 2), **values}
        self.folder.log(line)
        if self._report:
            self._report(line)

    def interrupted(self) -> TrainResult:
        """End before the last step."""
        self._log(event="interrupted")
        return TrainResult(
            steps=self.step,
            loss=self.loss,
            retrieval=self.retrieval,
            model=None,
            interrupted=True,
            rank=self.ranks.rank,
        )

    def finish(self) -> TrainResult:
        """Write the model."""
        if self.ranks.first:
            self._write_model()
        self.ranks.wait()
        self._log(event="done", model=str(self.folder.model))
        return TrainResult(
            steps=self.step, loss=self.loss, retrieval=self.retrieval, model=self.folder.model, interrupted=False,
            rank=self.ranks.rank,
        )  # fmt: skip

    def _write_model(self) -> None:
        """Write the weights, or their averages, mixed with those of the start where that was asked for; and measure them."""
        job = self.job
        with job.averaged():
            if job.config.alpha is not None:
                self._log(event="note", note=blend(job, job.config.alpha, self.folder.path))
                self.retrieval = None
            if job.measure and self.retrieval is None:  # other weights, or resumed after the last step
                self.retrieval = job.measure()
            write_open_clip_folder(job.model, job.trainable.config, self.folder.model)


def _trained(settings: Mapping[str, Any]) -> str:
    """The settings that say what trains, in words: optimizers of runs where they differ do not fit."""
    frozen = sorted({*settings.get("freeze", ()), *(["image"] if settings.get("lock_image") else [])})
    if settings.get("train_blocks") is not None:
        frozen.append(f"the text tower below its last {settings['train_blocks']} blocks")
    rows = "" if settings.get("unseen_rate") is None else ", unseen rows apart"
    return f"all but {' and '.join(frozen)}{rows}" if frozen else f"everything{rows}"
