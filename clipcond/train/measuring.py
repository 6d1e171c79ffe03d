"""Measurements on the way of a run: retrieval on the held-out pairs, and the drift on general prompts."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from clipcond.errors import ConfigError
from clipcond.train.best import combined_score
from clipcond.train.run import Run
from clipcond.train.saving import save
from clipcond.train.shown_pairs import keep_before


def measure_start(run: Run) -> None:
    """Measure retrieval before the first step of a new run, so that its end has something to be held against."""
    if run.step or run.job.measure is None or not (run.ranks.first or run.job.config.fsdp):
        return
    run.log.phase("measuring before the first step")
    found = run.job.measure()
    run.best.start = combined_score(found, None)  # nothing has moved yet
    run.say(event="evaluation", **found.to_dict())
    if run.ranks.first:
        keep_before(run.folder.path, run.job.measure.margins())
    run.window.since = time.monotonic()


def evaluate(run: Run) -> None:
    """Measure retrieval on the held-out pairs, if there are any, and the drift on general prompts, if it counts.

    Raises ConfigError, after saving, where the drift is beyond `max_drift`.
    """
    measures = run.ranks.first or run.job.config.fsdp  # divided towers compute together
    problem, score = _measure(run) if measures else ("", 0.0)
    if run.ranks.any(bool(problem)):
        save(run)
        raise ConfigError(problem or f"the general prompts collapsed by step {run.step}; the first process says how")
    if run.job.config.measures_best:
        _compare(run, float(run.ranks.sum(torch.tensor(score if run.ranks.first else 0.0, dtype=torch.float64))))


def _compare(run: Run, score: float) -> None:
    """Hold the score against the best, in all processes; keep a better one, and say where patience is at its end."""
    best, config = run.best, run.job.config
    better = best.take(run.step, score)
    run.say(event="score", score=round(score, 6), best=round(best.score, 6), best_step=best.step, waited=best.waited)
    if better and config.keep_best:
        save(run)
    if best.exhausted(config.patience) and run.step < run.job.steps:
        run.say(
            event="note",
            note=f"no better score in {best.waited} measurements: the run ends at step {run.step} of {run.job.steps}; "
            f"the best, {best.score:.3f}, was at step {best.step}",
        )  # fmt: skip


def _measure(run: Run) -> tuple[str, float]:
    """Measure and log; return why the run should end, in a line, empty where it should not, and the combined score."""
    job = run.job
    run.log.phase("measuring")
    with job.averaged():
        run.retrieval = job.measure() if job.measure else None
        drift = job.retention.measure() if job.retention else None
    if run.retrieval is not None:
        run.say(event="evaluation", **run.retrieval.to_dict())
    if not run.window.count:
        run.window.since = time.monotonic()
    score = 0.0 if run.retrieval is None else combined_score(run.retrieval, drift)
    if drift is None:
        return "", score
    measures = {name: round(value, 6) for name, value in drift.measures().items()}
    run.say(event="drift", spread_ratio=round(drift.spread_ratio, 4), measures=measures)
    return _collapse(run, measures, drift.spread_ratio), score


def _collapse(run: Run, measures: Mapping[str, float], spread_ratio: float) -> str:
    config, name = run.job.config, "words" if "words" in measures else "pooled"
    found = {f"1 - cosine of their {name}": measures[name], "their loss of spread": 1 - spread_ratio}
    beyond = [f"{what} is {value:.2f}" for what, value in found.items() if not value <= config.max_drift]
    if not beyond:
        return ""
    return (
        f"the general prompts collapsed by step {run.step}: {beyond[0]}, max_drift is {config.max_drift:g}; what was "
        f"trained is in {run.folder.checkpoints}, from where a higher max_drift goes on; better, begin anew with a "
        f"learning rate below {config.learning_rate:g} or a retention above {config.retention:g}"
    )
