"""What a run measures on its way: retrieval on the held-out pairs, and the drift on general prompts."""

from __future__ import annotations

import time
from collections.abc import Mapping

from clipcond.errors import ConfigError
from clipcond.train.run import Run
from clipcond.train.saving import save


def evaluate(run: Run) -> None:
    """Measure retrieval on the held-out pairs, if there are any, and the drift on general prompts, if it counts.

    Raises ConfigError, after saving, where the drift is beyond `max_drift`.
    """
    problem = _measure(run) if run.ranks.first else ""
    if run.ranks.any(bool(problem)):
        save(run)
        raise ConfigError(problem or f"the general prompts collapsed by step {run.step}; the first process says how")


def _measure(run: Run) -> str:
    """Measure and log; return why the run should end, in a line, empty where it should not."""
    job = run.job
    with job.averaged():
        run.retrieval = job.measure() if job.measure else None
        drift = job.retention.measure() if job.retention else None
    if run.retrieval is not None:
        run.say(event="evaluation", **run.retrieval.to_dict())
    if not run.window.count:
        run.window.since = time.monotonic()
    if drift is None:
        return ""
    measures = {name: round(value, 6) for name, value in drift.measures().items()}
    run.say(event="drift", spread_ratio=round(drift.spread_ratio, 4), measures=measures)
    return _collapse(run, measures, drift.spread_ratio)


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
