"""Both text encoders of a pipeline trained, one after the other: the second beside the first as it was trained.

Each is a whole run in its own folder of OUT, `text_encoder` and `text_encoder_2`, and goes on like any run. With a denoising
loss OUT also holds `beside`, a copy of the pipeline with the first encoder in it, of which the second run's denoiser is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import ConfigError, ModelError
from clipcond.train.encoders import FIRST_PART, SECOND_PART, PairSettings
from clipcond.workflows.events import Events, Note, ignore
from clipcond.workflows.export import ExportOptions
from clipcond.workflows.export import run as export
from clipcond.workflows.train import TrainOptions, check_inputs, noting_old_names, run_config

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


def run(options: TrainOptions, events: Events = ignore) -> PairResult:
    """Train both; an interrupted run of either goes on where it stopped.

    Raises what a run of one raises, ConfigError for several processes, and ModelError for a pipeline that is no folder, of
    which no copy could get the first encoder; all that can be told before the first step of the first.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("encoder is 'both', which trains in one process; train one encoder after the other instead")
    settings = noting_old_names(options.resolved, events)
    assert isinstance(settings, PairSettings), "options.of_pair() says whether they are of a pair"
    first_config, second_config = options.checked(settings.first), options.checked(settings.second)
    pipeline = first_config.pipeline
    if pipeline and not (Path(pipeline).expanduser() / "model_index.json").is_file():
        raise ModelError(f"{pipeline} is no pipeline's folder; expected one, of which a copy gets the first encoder")
    for config in (first_config, second_config):
        check_inputs(config)
    events(Note(f"{FIRST_PART} trains first, in {first_config.out}"))
    first = run_config(first_config, events, allow_changes=options.allow_changes)
    if first.interrupted:
        return PairResult(first=first, second=None, model=None)
    if pipeline:
        beside = _with_first(Path(settings.out), pipeline, events)
        second_config = options.checked({**settings.second, "pipeline": str(beside)})
    events(Note(f"{SECOND_PART} trains now, in {second_config.out}" + (", beside the first" if pipeline else "")))
    second = run_config(second_config, events, allow_changes=options.allow_changes)
    return PairResult(first=first, second=second, model=None if second.interrupted else Path(settings.out))


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
