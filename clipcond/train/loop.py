"""The training loop, read from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from clipcond.train.config import TrainConfig
from clipcond.train.dashboards import check_installed
from clipcond.train.denoising import Denoiser
from clipcond.train.job import prepare
from clipcond.train.measuring import evaluate, measure_start
from clipcond.train.ranks import Ranks, launched_ranks
from clipcond.train.resuming import begin, resume, store
from clipcond.train.run import Run, TrainResult
from clipcond.train.run_folder import RunFolder, held
from clipcond.train.run_log import JsonLines, Listener, Report, Reporting, RunLog
from clipcond.train.saving import finish, interrupted, save
from clipcond.train.signals import stop_signals
from clipcond.train.stepping import batches, log_progress, optimise

__all__ = ["Listener", "Report", "TrainResult", "train"]


def train(
    config: TrainConfig, *, report: Report | None = None, allow_changes: bool = False, denoiser: Denoiser | None = None,
    listener: Listener | None = None,
) -> TrainResult:  # fmt: skip
    """Train both towers, or what `config.freeze` leaves of them, and write them to `out/model`, an open_clip folder.

    Goes on from the last checkpoint in `out/checkpoints`, in mid-epoch too: on a CPU with the same number of threads
    the weights are those of a run that was never interrupted, bit for bit. SIGINT and SIGTERM finish the step, save and
    return. Before the first step they raise KeyboardInterrupt, unless something is being stored, which is kept: then the
    run returns as well. Every log line goes to `out/log.jsonl` and to `report`.

    Under `torchrun` the processes share each batch; the first of them holds the folder, logs and reports.

    allow_changes: resume even if settings or data differ from the checkpoint's.   denoiser: of `config.pipeline`, where the
    run has a denoising loss, as `clipcond.diffusion.denoising_loss` loads it.   listener: hears of every step, and of what
        takes a while.
    Raises DataError and ModelError before the first step, OutputExists if another process trains in `out`, or if it
    holds a model or a config that this run did not write, ConfigError for a refused resumption or a loss that is not
    finite. A picture that turns out unreadable on the way is a DataError after saving.
    """
    check_installed(config.log_to)
    with (
        stop_signals() as signals,
        launched_ranks() as ranks,
        _held(Path(config.out), ranks) as folder,
        closing(RunLog(_listeners(folder, report, listener), speaks=ranks.first)) as log,
    ):
        log.phase(f"reading {config.data}, loading {config.model}")
        job = prepare(config, denoiser, ranks)
        run = Run(job=job, folder=folder, log=log, notes=list(job.notes))
        resume(run, allow_changes)
        begin(run)
        if kept := store(run):
            return interrupted(run, kept)
        measure_start(run)
        signals.defer()
        for batch in batches(run):
            optimise(run, batch)
            if run.due(config.log_every):
                log_progress(run)
            if run.due(config.eval_every):
                evaluate(run)
            stopping = ranks.any(signals.came)
            if run.due(config.save_every) or stopping:
                save(run)
            if stopping and not run.done:
                return interrupted(run)
        return finish(run)


def _listeners(folder: RunFolder, report: Report | None, listener: Listener | None) -> list[Listener]:
    """The log's file comes first: what others hear is written."""
    others = [*([Reporting(report)] if report else []), *([listener] if listener else [])]
    return [JsonLines(folder), *others]


@contextmanager
def _held(path: Path, ranks: Ranks) -> Iterator[RunFolder]:
    """Hold the run's folder for the first of its processes; the others only read in it."""
    if not ranks.first:
        yield RunFolder(path)
        return
    with held(path) as folder:
        folder.refuse_foreign()
        yield folder
