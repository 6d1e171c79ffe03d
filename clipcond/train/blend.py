"""The end of a run with an `alpha`: its weights take their place between start and end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from clipcond.files import write_file
from clipcond.train.context import lengthen
from clipcond.train.job import Job
from clipcond.train.pareto_picture import pareto_picture
from clipcond.train.start import load_start
from clipcond.train.wise_ft import AlphaPoint, choose, mixed, sweep


def blend(job: Job, alpha: str, out: Path) -> tuple[float, str]:
    """Mix the weights from before the first step into the model, in place; return the place of the dial, and it in a line.

    alpha: `auto`, which leaves `alpha.json` and `alpha.svg` in `out`, or a number from 0 to 1.
    """
    start = load_start(job.config)
    lengthen(start, job.config.context_length, job.config.model)
    before = start.model.to(job.device).state_dict()
    after = {name: value.clone() for name, value in job.model.state_dict().items()}
    if alpha != "auto":
        job.model.load_state_dict(mixed(before, after, float(alpha)))
        return float(alpha), f"the model is {float(alpha):g} of the way from {job.config.model} to what was trained"

    def measure(weights: Mapping[str, Tensor]) -> tuple[float, float]:
        job.model.load_state_dict(weights)
        return _measured(job)

    points = sweep(before, after, measure)
    chosen = choose(points)
    job.model.load_state_dict(mixed(before, after, chosen.alpha))
    document = {"chosen": chosen.alpha, "points": [point.to_json() for point in points]}
    write_file(out / "alpha.json", json.dumps(document, indent=2) + "\n", overwrite=True)
    write_file(out / "alpha.svg", pareto_picture(points, chosen), overwrite=True)
    said = f"alpha is {chosen.alpha:g}: {_said(chosen)}; at 0 {_said(points[0])}; at 1 {_said(points[-1])}"
    return chosen.alpha, said


def _measured(job: Job) -> tuple[float, float]:
    """Return the model's R@1, mean of both ways, and its drift, of words or of the pooled vector."""
    assert job.measure is not None, "settings with an alpha of auto name held-out pairs"
    assert job.retention is not None, "settings with an alpha of auto name a target"
    recall = job.measure()
    measures = job.retention.measure().measures()
    return (recall.image_to_text[1] + recall.text_to_image[1]) / 2, measures.get("words", measures.get("pooled", 0.0))


def _said(point: AlphaPoint) -> str:
    return f"R@1 {100 * point.recall:.1f} %, drift {point.drift:.4f}"
