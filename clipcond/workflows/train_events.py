"""The events of a training run, and which one a line of its log is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from clipcond.workflows.events import Event, Note

if TYPE_CHECKING:
    from clipcond.train.run_log import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStarted(Event):
    """The run is set up; `step` is where it goes on, 0 at the start."""

    step: int
    resumed: bool
    steps: int
    steps_per_epoch: int
    warmup: int
    images: int
    captions: int
    trainable: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone(Event):
    """The numbers of the last steps. terms: of the loss, by name, before their weights. by_stage: pairs a second
    that each stage of a step alone would give."""

    step: int
    loss: float
    learning_rate: float
    logit_scale: float
    grad_norm: float
    pairs_per_second: float
    terms: Mapping[str, float] = field(default_factory=dict)
    by_stage: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepTaken(Event):
    """A step is done; this comes at each one."""

    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated(Event):
    """Retrieval among the held-out images: recall by its name, `R@1` and on."""

    step: int
    images: int
    image_to_text: Mapping[str, float]
    text_to_image: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSeen(Event):
    """Drift on general prompts since the first step: the measures of `clipcond drift`, each 0 for no change."""

    step: int
    spread_ratio: float
    measures: Mapping[str, float]


def event_of(line: Mapping[str, Any]) -> Event | None:
    """Return the event of a log line; None for the lines of an ending, which the result tells."""
    kind = line.get("event")
    if kind in ("start", "resume"):
        return TrainingStarted(resumed=kind == "resume", **_values(line, TrainingStarted, apart_from="resumed"))
    if kind == "evaluation":
        return Evaluated(**_values(line, Evaluated))
    if kind == "drift":
        return DriftSeen(**_values(line, DriftSeen))
    if kind == "note":
        return Note(line["note"])
    if kind is None:
        return StepDone(**_values(line, StepDone))
    return None


def _values(
    line: Mapping[str, Any], event: type[TrainingStarted | Evaluated | DriftSeen | StepDone], apart_from: str = ""
) -> dict[str, Any]:
    return {each.name: line[each.name] for each in fields(event) if each.name != apart_from}
