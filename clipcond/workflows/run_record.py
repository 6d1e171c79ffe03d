"""A training run as its folder tells it: settings, the lines of its log by kind, and its best and worst captions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipcond.errors import DataError

Line = dict[str, Any]

_WHOLE: dict[str | None, set[str]] = {
    None: {"loss", "learning_rate", "grad_norm", "logit_scale", "pairs_per_second"},
    "evaluation": {"image_to_text", "text_to_image", "images", "texts"},
    "drift": {"measures", "spread_ratio"},
    "score": {"score", "best", "best_step"},
}  # what a line of each kind holds; older logs have lines with less


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run. Lines are in the order of their steps; of a step that was done twice, after a kill, the later one counts.

    start: the first line of the last start. end: the line of the model that was written, None before that. steps: means of
    the steps since the line before. pairs: what `pairs.json` holds, empty for a run without held-out pairs.
    """

    folder: Path
    config: dict[str, Any]
    start: Line
    steps: tuple[Line, ...] = ()
    evaluations: tuple[Line, ...] = ()
    drifts: tuple[Line, ...] = ()
    scores: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()
    end: Line | None = None
    last_step: int = 0
    pairs: dict[str, Any] = field(default_factory=dict)

    @property
    def model_step(self) -> int:
        """The step whose weights the model has, or would have: that of the best score where it is kept, else the last."""
        return self.scores[-1]["best_step"] if self.scores and self.config.get("keep_best") else self.last_step

    @property
    def before(self) -> Line | None:
        """Recall before the first step, where that was measured."""
        return next((line for line in self.evaluations if line["step"] == 0), None)

    @property
    def after(self) -> Line | None:
        """Recall of the model, or of the last evaluation before there is one."""
        if self.end is not None and "retrieval" in self.end:
            found: Line = self.end["retrieval"]
            return found
        return self.evaluations[-1] if self.evaluations else None

    @property
    def drift(self) -> Line | None:
        """Drift at the model's step, or the last one."""
        own = [line for line in self.drifts if line["step"] == self.model_step] or self.drifts[-1:]
        return own[-1] if own else None


def read_run(folder: Path) -> RunRecord:
    """Read a run's folder. Raises DataError where it is none, or where its log has no start."""
    config, lines = _json(folder / "config.json", folder), _lines(folder)
    starts = [line for line in lines if line.get("event") in ("start", "resume")]
    if not starts:
        raise DataError(f"{folder}/log.jsonl has no line that starts a run")
    pairs = folder / "pairs.json"
    return RunRecord(
        folder=folder, config=config, start=starts[-1], steps=_of(lines, None), evaluations=_of(lines, "evaluation"),
        drifts=_of(lines, "drift"), scores=_of(lines, "score"),
        notes=tuple(dict.fromkeys(str(line["note"]) for line in lines if line.get("event") == "note" and "note" in line)),
        end=lines[-1] if lines[-1].get("event") == "done" else None, last_step=lines[-1]["step"],
        pairs=_json(pairs, folder) if pairs.is_file() else {},
    )  # fmt: skip


def _of(lines: list[Line], event: str | None) -> tuple[Line, ...]:
    """Return the whole lines of a kind, each step's last."""
    found = {line["step"]: line for line in lines if line.get("event") == event and _WHOLE[event] <= line.keys()}
    return tuple(found[step] for step in sorted(found))


def _lines(folder: Path) -> list[Line]:
    """Read the log; a line that a kill cut short is left out."""
    try:
        text = (folder / "log.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{folder} is no training run: it has no log.jsonl ({error.strerror})") from error
    found = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and type(record.get("step")) is int:
            found.append(record)
    return found


def _json(path: Path, folder: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{folder} is no training run: {path.name} cannot be read") from error
    if not isinstance(found, dict):
        raise DataError(f"{folder} is no training run: {path.name} holds no record")
    return found
