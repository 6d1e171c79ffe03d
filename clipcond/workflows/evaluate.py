"""Retrieval of a model on all pairs of a data source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipcond.workflows.events import Events, ignore, task
from clipcond.workflows.model_names import check_model

if TYPE_CHECKING:
    from clipcond.score.retrieval import Retrieval


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """model: any spec with both towers.   data: CSV, TSV, JSONL, a WebDataset tar, a glob or folder of tars."""

    model: str
    data: str


def run(options: EvaluateOptions, events: Events = ignore) -> Retrieval:
    """Measure retrieval, image to text and text to image. Raises ModelError, DataError."""
    from clipcond.train.data import read_pairs

    check_model(options.model)
    with task(events, f"reading {options.data}"):  # first: it needs no model library
        pairs = read_pairs(options.data)
    from clipcond.train.evaluate import evaluate

    with task(events, f"measuring {options.model}"):
        return evaluate(options.model, pairs)
