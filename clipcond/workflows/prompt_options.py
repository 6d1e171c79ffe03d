"""One prompt and how it is read and conditioned, as `encode`, `generate` and their like take it. Needs no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from clipcond.errors import ConfigError, OptionsError, ResourceMissing
from clipcond.prompt.items import Adapter, Compose, Parsed, adapters_in
from clipcond.prompt.operations import parse_operations
from clipcond.prompt.plan import CHUNKINGS, DIALECTS
from clipcond.workflows.choices import DIALECT_ALIASES, chosen
from clipcond.workflows.events import Events, Note

_LONGEST_NAME = 255  # of a file; beyond, nothing is looked for

AUTO, PLAIN = "auto", "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOptions:
    """A prompt, those of the other encoders, and the settings of their conditioning.

    None is a default that the dialect or the family has. dialect: `auto`, and empty for one that was not given, are
    decided by `with_dialect`. Names may be written in any case.
    embeddings: a folder of textual inversions.   lora_dir: a folder of LoRAs.   operations: operations on the conditioning, as
    `clipcond.prompt.operations` reads them.
    Raises OptionsError for a chunking, a weighting and operations that do not exist.
    """

    prompt: str | None = None
    negative_prompt: str | None = None
    prompt_2: str | None = None
    prompt_3: str | None = None
    dialect: str = ""
    weighting: str | None = None
    chunking: str | None = None
    clip_skip: int = 0
    pooled: str = "first"
    lengths: str | None = None
    embeddings: Path | None = None
    lora_dir: Path | None = None
    operations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dialect:
            named = chosen("--dialect", self.dialect, (*DIALECTS, AUTO), DIALECT_ALIASES)
            object.__setattr__(self, "dialect", named)
        if self.chunking is not None:
            object.__setattr__(self, "chunking", chosen("--chunking", self.chunking, CHUNKINGS))
        try:
            parse_operations(self.operations)
        except ConfigError as error:
            raise OptionsError(f"--operation: {error}") from None
        if self.weighting is not None:
            object.__setattr__(self, "weighting", self.weighting.lower())
            from clipcond.condition.weighting import parse_method

            try:
                parse_method(self.weighting)
            except ConfigError as error:
                raise OptionsError(f"--weighting: {error}") from None

    @property
    def is_counterfactual(self) -> bool:
        """True if the weights act while a picture is drawn."""
        return self.weighting == "counterfactual"

    @property
    def text(self) -> str:
        """The prompt; empty where none was given."""
        return self.prompt or ""

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts that were given."""
        given = (self.prompt, self.negative_prompt, self.prompt_2, self.prompt_3)
        return tuple(text for text in given if text is not None)

    @property
    def others(self) -> dict[str, str]:
        """The prompts of further encoders that were given, by their names."""
        given = {"prompt_2": self.prompt_2, "prompt_3": self.prompt_3}
        return {name: text for name, text in given.items() if text is not None}

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of a Conditioner's call beside the prompt; `auto` must be decided by then."""
        apart = ("prompt", "embeddings", "lora_dir", "operations")
        named = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in apart}
        return named | ({"operations": parse_operations(self.operations)} if self.operations else {})

    def first_given(self, *, apart_from: Collection[str] = ()) -> str | None:
        """Return the first option, as `--name`, that is not at its default; None where all are, apart from some."""
        for each in fields(self):
            usual = (each.default, PLAIN) if each.name == "dialect" else (each.default,)
            if each.name not in ("prompt", *apart_from) and getattr(self, each.name) not in usual:
                return "--" + each.name.replace("_", "-")
        return None


def with_dialect(options: PromptOptions, events: Events) -> PromptOptions:
    """Return the options with `auto` decided by the prompt, which a note tells with the reason; not given is plain."""
    if not options.dialect:
        return replace(options, dialect=PLAIN)
    if options.dialect != AUTO:
        return options
    from clipcond.prompt.dialects.detect import detect

    found = detect(options.text)
    events(Note(f"dialect {found.dialect}: {found.reason}"))
    return replace(options, dialect=found.dialect)


def note_file(options: PromptOptions, otherwise: str, events: Events) -> None:
    """Note that the prompt is the name of a file, where it is. otherwise: what reads the file."""
    text = options.prompt or ""
    if text and len(text) <= _LONGEST_NAME and not any(map(str.isspace, text)) and Path(text).is_file():
        events(Note(f"the prompt is the name of the file {text}, and is read as it stands; {otherwise}"))


def check_folders(prompt: PromptOptions) -> None:
    """Raise ResourceMissing for a folder of embeddings or LoRAs that is not there."""
    for folder, what in ((prompt.embeddings, "textual inversions"), (prompt.lora_dir, "LoRAs")):
        if folder is not None and not folder.is_dir():
            raise ResourceMissing(f"{folder}: no such folder; give one with {what}")


def composes(text: str, dialect: str) -> bool:
    """True if a text holds an AND, whose parts are put together while a picture is made."""
    return any(isinstance(item, Compose) and item.how == "noise" for item in _parsed(text, dialect).items)


def adapters_of_texts(options: PromptOptions) -> Iterator[Adapter]:
    """Yield the adapters that the texts ask for, each as often as it is named."""
    for text in options.texts:
        yield from adapters_in(_parsed(text, options.dialect).items)


def _parsed(text: str, dialect: str) -> Parsed:
    from clipcond.prompt.dialects.parse import parse

    return parse(text, dialect)
