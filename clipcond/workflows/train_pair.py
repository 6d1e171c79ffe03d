"""Both text encoders of a pipeline trained, one after the other: the second beside the first as it was trained.

Each is a whole run in its own folder of OUT, `text_encoder` and `text_encoder_2`, and goes on like any run. With a denoising
loss OUT also holds `beside`, a copy of the pipeline with the first encoder in it, of which the second run's denoiser is.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import ConfigError, ModelError
from clipcond.train.encoders import FIRST_PART, SECOND_PART, PairSettings, resolve_encoder
from clipcond.workflows.events import Events, Note, ignore
from clipcond.workflows.export import ExportOptions
from clipcond.workflows.export import run as export
from clipcond.workflows.model_names import check_model
from clipcond.workflows.train import TrainOptions
from clipcond.workflows.train import run as train

if TYPE_CHECKING:
    from clipcond.train.loop import TrainResult

_BESIDE = "beside"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairResult:
    """The outcome of both runs. second: None if the first was interrupted.   model: OUT, None before both have ended."""

    first: TrainResult
    second: TrainResult | None
    model: Path | None

    @property
    def last(self) -> TrainResult:
        """The result of the run that ended last."""
        return self.second or self.first


def is_pair(options: TrainOptions) -> bool:
    """True for two runs, of both text encoders of a pipeline. Raises ConfigError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the run notes old names
        return isinstance(resolve_encoder(options.given()), PairSettings)


def run(options: TrainOptions, events: Events = ignore) -> PairResult:
    """Train both; an interrupted run of either goes on where it stopped.

    Raises what a run of one raises, ConfigError for several processes, and ModelError for a pipeline that is no folder, of
    which no copy could get the first encoder; settings and names that will not do, before the first step of the first.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("encoder is 'both', which trains in one process; train one encoder after the other instead")
    settings = _settings(options, events)
    pipeline = settings.first.get("pipeline")
    if pipeline and not (Path(pipeline).expanduser() / "model_index.json").is_file():
        raise ModelError(f"{pipeline} is no pipeline's folder; expected one, of which a copy gets the first encoder")
    first_run, second_run = (_one(options, each) for each in (settings.first, settings.second))
    check_model(str(second_run.train_config().model))
    events(Note(f"{FIRST_PART} trains first, in {settings.first['out']}"))
    first = train(first_run, events)
    if first.interrupted:
        return PairResult(first=first, second=None, model=None)
    if pipeline:
        beside = _with_first(Path(settings.out), pipeline, events)
        second_run = _one(options, {**settings.second, "pipeline": str(beside)})
    events(Note(f"{SECOND_PART} trains now, in {settings.second['out']}" + (", beside the first" if pipeline else "")))
    second = train(second_run, events)
    return PairResult(first=first, second=second, model=None if second.interrupted else Path(settings.out))


def _settings(options: TrainOptions, events: Events) -> PairSettings:
    """Read the settings of both; old names of some become notes."""
    with warnings.catch_warnings(record=True) as old_names:
        warnings.simplefilter("always", DeprecationWarning)
        settings = resolve_encoder(options.given())
    for each in old_names:
        events(Note(str(each.message)))
    assert isinstance(settings, PairSettings), "is_pair says whether they are of a pair"
    return settings


def _one(options: TrainOptions, settings: Mapping[str, object]) -> TrainOptions:
    """Return the options of one of both runs, whose settings are complete."""
    return replace(options, config=None, settings=settings)


def _with_first(out: Path, pipeline: str, events: Events) -> Path:
    """Return a copy of the pipeline with the first encoder as it was trained; what does not change is linked."""
    beside = out / _BESIDE
    export(
        ExportOptions(
            model=str(out / FIRST_PART), to="diffusers", into=pipeline, out=beside, encoder="clip_l", force=True
        ),
        events,
    )
    return beside
