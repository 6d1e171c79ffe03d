"""A look at training data and settings before a run: what would stop it, and what would spoil it. No model library is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import ClipCondError, DataError, ModelError, OptionsError
from clipcond.workflows.events import Events, ignore, task
from clipcond.workflows.train import TrainOptions, check_named

if TYPE_CHECKING:
    from clipcond.encode.unseen_words import TokenRows
    from clipcond.train.check import Check
    from clipcond.train.config import TrainConfig
    from clipcond.train.data import Pairs

_ANY_NUMBER = 1 << 62  # of bad rows: all are counted
_ABSENT = "not given"
SAMPLE = 500  # pictures that are decoded, as before every run


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightOptions:
    """A file of settings, settings that win over it, or both; of these the data alone are needed.

    decode: pictures that are decoded to their end: `all`, `none` or a number. Raises OptionsError.
    """

    settings: Mapping[str, object]
    config: Path | None = None
    decode: str = str(SAMPLE)

    def __post_init__(self) -> None:
        if self.decode not in ("all", "none") and not self.decode.isdecimal():
            raise OptionsError(f"--decode is {self.decode}, expected all, none, or a number of pictures")
        if self.config is None and "data" not in self.settings:
            raise OptionsError("give --data, or a CONFIG.toml that names it")

    @property
    def most(self) -> int | None:
        """The number of pictures to decode; None for all."""
        return None if self.decode == "all" else 0 if self.decode == "none" else int(self.decode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """Outcome of all checks, in order."""

    data: str
    checks: tuple[Check, ...]

    @property
    def stops(self) -> bool:
        """True if a run would stop before its first step."""
        return any(check.verdict == "stops" for check in self.checks)

    def to_json(self) -> dict[str, object]:
        """Return the document of `clipcond train --check --json`."""
        return {"data": self.data, "stops": self.stops, "checks": [check.to_json() for check in self.checks]}


def run(options: PreflightOptions, events: Events = ignore) -> Preflight:
    """Look at data and settings; what is wrong with them is in the result. Raises ConfigError for settings that are none."""
    from clipcond.train.encoders import first_run

    needed = {"model": _ABSENT, "out": _ABSENT}
    settings = options.settings if options.config is not None else {**needed, **options.settings}
    given = TrainOptions(config=options.config, settings=settings).given()
    config = _config(first_run({**needed, **given}), events)
    return Preflight(data=config.data, checks=tuple(_checks(config, options.most, events)))


def _config(settings: Mapping[str, object], events: Events) -> TrainConfig:
    """Return the settings; a preset keeps its batch where the data cannot be read, which a check says."""
    from clipcond.train.config import from_mapping

    try:
        return TrainOptions(settings=settings).train_config(events)
    except DataError:
        return from_mapping(settings)


def _checks(config: TrainConfig, most: int | None, events: Events) -> Iterator[Check]:
    from clipcond.train.check import STOPS, Check
    from clipcond.train.source_checks import check_rate, check_rows, check_source, check_steps

    if config.model != _ABSENT:
        try:
            check_named(config)
        except ClipCondError as error:
            yield Check(name="settings", verdict=STOPS, text=str(error))
    pairs, held_out, problem = _read(config, events)
    if pairs is None:
        yield Check(name="data", verdict=STOPS, text=problem)
        return
    yield check_source(config.data, pairs)
    yield check_rows(pairs, config.max_bad_rows)
    yield from _captions(config, pairs, events)
    yield from _pictures(config, pairs, held_out, most, events)
    if problem:
        yield Check(name="held out", verdict=STOPS, text=problem)
    yield check_steps(config, pairs)
    yield check_rate(config)


def _read(config: TrainConfig, events: Events) -> tuple[Pairs | None, Pairs | None, str]:
    """Return the pairs to train on, those held out, and what is wrong with either source."""
    from clipcond.train.data import read_pairs, split

    pairs = None
    try:
        with task(events, f"reading {config.data}"):
            pairs = read_pairs(config.data, max_bad_rows=_ANY_NUMBER)
        if config.val_count:
            return *split(pairs, config.val_count, config.seed), ""
        held_out = read_pairs(config.val_data, max_bad_rows=_ANY_NUMBER) if config.val_data else None
    except DataError as error:
        return pairs, None, str(error)
    return pairs, held_out, ""


def _captions(config: TrainConfig, pairs: Pairs, events: Events) -> Iterator[Check]:
    from clipcond.prompt.tokenizer import CONTEXT
    from clipcond.train.caption_checks import captions_of, check_lengths, check_same_captions, check_words, ids_of

    with task(events, "reading captions"):
        captions = captions_of(pairs)
        ids = ids_of(captions)
        yield check_lengths(captions, ids, (config.context_length or CONTEXT) - 2)
        table, why = _token_table(config)
        yield check_words(captions, ids, table, config, why=why)
        yield check_same_captions(pairs, config)


def _pictures(
    config: TrainConfig, pairs: Pairs, held_out: Pairs | None, most: int | None, events: Events
) -> Iterator[Check]:
    from clipcond.train.picture_checks import check_decoding, check_leakage, check_same_pictures
    from clipcond.train.source_checks import check_rows

    sources = {"": pairs} if held_out is None else {"": pairs, "held-out ": held_out}
    for what, each in sources.items():
        if what and config.val_data:
            yield replace(check_rows(each, config.max_bad_rows), name="held-out rows")
        total = len(each) if most is None else min(most, len(each))
        allowed = max(0, config.max_bad_rows - len(each.left_out))
        with task(events, f"decoding {what}pictures", total, "pictures") as advance:
            found = check_decoding(each, most, allowed=allowed, advance=advance)
        yield replace(found, name=f"{what}pictures")
    with task(events, "comparing pictures"):
        yield check_same_pictures(pairs)
        if held_out is not None:
            yield check_leakage(pairs, held_out)


def _token_table(config: TrainConfig) -> tuple[TokenRows | None, str]:
    """Return the model's token table where its file is there, or why there is none."""
    from clipcond.models.folder_models import folder_named
    from clipcond.models.token_table import TokenTables

    if config.model == _ABSENT:
        return None, "no --model is given"
    if config.init == "random":
        return None, "of random weights every word is new"
    if (folder := folder_named(config.model)) is None:
        return None, f"the weights of {config.model} are looked at when a run loads them"
    try:
        return TokenTables([folder]), ""
    except ModelError as error:
        return None, str(error)
