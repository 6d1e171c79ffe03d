"""A training run, from a file of settings and those that win over it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipcond.errors import ConfigError, OptionsError
from clipcond.images.remote import is_remote
from clipcond.prompt.general import read_prompts
from clipcond.train.encoders import one_run
from clipcond.workflows.events import Events, Note, ignore, task
from clipcond.workflows.model_names import check_model

if TYPE_CHECKING:
    from clipcond.train.config import TrainConfig
    from clipcond.train.denoising import Denoiser
    from clipcond.train.loop import TrainResult


_TABLES = (".csv", ".tsv", ".jsonl")
_SMALL = 8 << 20  # bytes of a table that takes a moment to read


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """A TOML file of settings, settings by the names of TrainConfig that win over it, or both.

    allow_changes: resume although settings or data differ. Raises OptionsError where the settings that every run needs
    are in neither.
    """

    config: Path | None = None
    settings: Mapping[str, object]
    allow_changes: bool = False

    def __post_init__(self) -> None:
        if self.config is None and not {"data", "model", "out"} <= self.settings.keys():
            raise OptionsError("give a CONFIG.toml, or --data, --model and --out")

    def given(self) -> dict[str, Any]:
        """Return the settings of both, those that win in place of the file's. Raises ConfigError for an unreadable file."""
        from clipcond.train.config import read_settings, renamed

        given = dict(self.settings)
        if self.config is None:
            return renamed(given, source=self._source)
        if "steps" in given:  # it replaces the file's length, however that is given
            given.setdefault("epochs", None)
        elif "epochs" in given:
            given.setdefault("steps", None)
        return read_settings(self.config, given)

    @property
    def _source(self) -> str:
        return "the command line" if self.config is None else str(self.config)

    def train_config(self, events: Events = ignore) -> TrainConfig:
        """Read and check all settings; a preset's batch is cut to what the data can fill, and said with the rest of it.

        Raises ConfigError; with a preset DataError too.
        """
        from clipcond.train.config import from_mapping

        given = one_run(self.given())
        config = from_mapping(given, source=self._source)
        if given.get("preset") is None:
            return config
        from clipcond.train.presets import preset_line

        if given.get("batch_size") is None:
            config = _with_fitting_batch(config)
        events(Note(preset_line(given, config.to_dict())))
        return config


def _with_fitting_batch(config: TrainConfig) -> TrainConfig:
    from clipcond.train.data import read_pairs
    from clipcond.train.presets import fitting_batch

    images = len(read_pairs(config.data, max_bad_rows=config.max_bad_rows)) - config.val_count
    return replace(config, batch_size=fitting_batch(config.batch_size, images))


def run(options: TrainOptions, events: Events = ignore) -> TrainResult:
    """Train; an interrupted run goes on where it stopped. Log lines become events.

    Raises ConfigError, DataError, ModelError and OutputExists as `clipcond.train` does.
    """
    with warnings.catch_warnings(record=True) as old_names:
        warnings.simplefilter("always", DeprecationWarning)
        config = options.train_config(events)
    for each in old_names:
        events(Note(str(each.message)))
    _check_inputs(config)

    from clipcond.train.signals import stop_signals

    with stop_signals():  # importing the loop, and torch with it, takes a while
        with task(events, "loading torch"):
            from clipcond.train.loop import train
        from clipcond.workflows.train_watch import watch

        denoiser = _denoiser(config, events)
        with watch(events) as listener:
            return train(config, listener=listener, allow_changes=options.allow_changes, denoiser=denoiser)


def _denoiser(config: TrainConfig, events: Events) -> Denoiser | None:
    """Load the denoiser of a run with a denoising loss, to the run's device. Raises ModelError."""
    if not config.pipeline:
        return None
    from clipcond.diffusion.denoising_loss import load_denoising_loss

    with task(events, f"loading {config.pipeline}"):
        return load_denoising_loss(config.pipeline, device=config.device, target=config.target)


def _check_inputs(config: TrainConfig) -> None:
    """Look at model and data before a model library is imported. Raises ModelError, DataError.

    Tables of moderate size are read, for their header; larger ones and tars only have to be there.
    """
    from clipcond.train.data import read_pairs

    check_named(config)
    for data in filter(None, (config.data, config.val_data)):
        path = Path(str(data))
        pattern = any(mark in str(data) for mark in "*?[{")
        small_table = path.suffix in _TABLES and path.is_file() and path.stat().st_size <= _SMALL
        if small_table or not (pattern or is_remote(str(data)) or path.exists()):
            read_pairs(data, max_bad_rows=config.max_bad_rows)


def check_named(config: TrainConfig) -> None:
    """Look for all that the settings name beside the data. Raises ModelError, ConfigError, DataError."""
    check_model(str(config.model))
    if config.pipeline:
        from clipcond.diffusion.pipeline_names import find_pipeline

        find_pipeline(config.pipeline)
    if config.retention_prompts:
        read_prompts(Path(config.retention_prompts))
    if config.teacher and not config.teacher.endswith(".safetensors"):
        check_model(config.teacher)
    elif config.teacher and not Path(config.teacher).is_file():
        raise ConfigError(
            f"teacher {config.teacher} does not exist; expected embeddings that a run stored (OUT/teacher.safetensors), "
            "or a model"
        )
