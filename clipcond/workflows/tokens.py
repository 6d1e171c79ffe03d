"""Tokens of prompts counted, chunked and compared: one prompt, each line of a file, or a collection in numbers.

`clipcond tokens` starts with this module: it imports little, and nothing heavy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from clipcond.errors import DataError, OptionsError, ResourceMissing
from clipcond.prompt import plan as planner

if TYPE_CHECKING:
    from clipcond.prompt.analysis.collection import Survey
    from clipcond.prompt.analysis.phrases import Analysis
    from clipcond.prompt.plan import PromptPlan
    from clipcond.workflows.events import Events

ALL_FAMILIES, AUTO = "all", "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensOptions:
    """One of `prompt` and `file` (`-` is standard input), and how it is read.

    compare: another dialect, counted too.   embeddings: a folder of textual inversions.   t5_tokenizer: a file, a folder
    or a hub name in the local cache.   explain: with the phrases of one prompt.   stats: a file as a collection.
    Raises OptionsError for options that contradict one another, and for a chunking that does not exist.
    """

    prompt: str | None = None
    file: Path | None = None
    family: str = "sd15"
    dialect: str = "plain"
    compare: str | None = None
    chunking: str | None = None
    embeddings: Path | None = None
    t5_tokenizer: str | None = None
    explain: bool = False
    stats: bool = False

    def __post_init__(self) -> None:
        if problem := problem_with(self):
            raise OptionsError(problem)


class CountedPrompt(NamedTuple):
    """The plans of a prompt: for each dialect a column, with a plan for each family. dialect_reason: why `auto` chose."""

    columns: tuple[tuple[PromptPlan, ...], ...]
    dialect_reason: str = ""

    @property
    def truncated(self) -> bool:
        """True if a stock pipeline would lose anything."""
        return any(plan.truncated for plans in self.columns for plan in plans)

    def analyses(self) -> tuple[Analysis, ...]:
        """Analyse the prompt for the first family, once for each dialect."""
        from clipcond.prompt.analysis.phrases import analyse

        return tuple(analyse(plans[0]) for plans in self.columns)


def problem_with(options: TokensOptions) -> str | None:
    """Say which options contradict one another, in words for the one who gave them; None when all is well."""
    if (options.prompt is None) == (options.file is None):
        return "give either a PROMPT or --file FILE"
    if options.stats and options.file is None:
        return "--stats needs --file FILE"
    if options.stats and options.compare:
        return "--stats counts one dialect; leave out --compare"
    if options.explain and options.file is not None:
        return "--explain is about one PROMPT; leave out --file"
    if options.chunking not in {None, *planner.CHUNKINGS}:
        return f"--chunking {options.chunking} does not exist; there are {', '.join(planner.CHUNKINGS)}"
    if options.compare and options.compare == options.dialect:
        return f"--compare {options.compare} is the same as --dialect {options.dialect}; name another"
    return None


class TokenCounter:
    """Counts prompts as the options say; looks for embeddings once, and notes those that it cannot read."""

    def __init__(self, options: TokensOptions, events: Events) -> None:
        self.options, self._events = options, events
        self.families = tuple(planner.FAMILIES) if options.family == ALL_FAMILIES else (options.family,)
        self._embeddings = None
        if options.embeddings is not None:
            from clipcond.prompt.embeddings import scan
            from clipcond.workflows.events import Note

            self._embeddings = scan(options.embeddings)
            for path, reason in self._embeddings.unreadable:
                events(Note(f"{path}: {reason}"))
            if not self._embeddings:
                events(Note(f"{options.embeddings}: no embeddings there"))

    def count(self, prompt: str) -> CountedPrompt:
        """Count one prompt; a note says which dialect `auto` chose."""
        counted = self._count(prompt)
        if counted.dialect_reason:
            from clipcond.workflows.events import Note

            self._events(Note(counted.dialect_reason))
        return counted

    def count_lines(self) -> Iterator[CountedPrompt]:
        """Count each line of the file. Raises ResourceMissing and DataError as `read_prompts` does."""
        return map(self._count, read_prompts(self._file()))

    def survey(self) -> Survey:
        """Count the file as a collection, in its first dialect. Raises as `read_prompts` does."""
        from clipcond.prompt.analysis.collection import survey

        return survey(read_prompts(self._file()), dialect=self.options.dialect)

    def plan(self, prompt: str) -> PromptPlan:
        """Plan a prompt for the first family in its own dialect."""
        return self._count(prompt).columns[0][0]

    def document(self, counted: CountedPrompt) -> dict[str, object]:
        """Return the JSON of one prompt: its plan, or all its plans where the options ask for several."""
        plans = [plan for column in counted.columns for plan in column]
        documents = [plan.to_json() for plan in plans]
        if self.options.explain:
            from clipcond.prompt.analysis.phrases import analyse

            for document, plan in zip(documents, plans, strict=True):
                document["analysis"] = analyse(plan).to_json()
        several = self.options.family == ALL_FAMILIES or self.options.compare is not None
        return {"prompt": plans[0].prompt, "plans": documents} if several else documents[0]

    def _count(self, prompt: str) -> CountedPrompt:
        dialect, reason = self.options.dialect, ""
        if dialect == AUTO:
            from clipcond.prompt.dialects.detect import detect

            detection = detect(prompt)
            dialect, reason = detection.dialect, f"dialect {detection.dialect}: {detection.reason}"
        dialects = dict.fromkeys([dialect, self.options.compare or dialect])
        columns = [tuple([self._plan(prompt, one, family) for family in self.families]) for one in dialects]
        return CountedPrompt(columns=tuple(columns), dialect_reason=reason)

    def _plan(self, prompt: str, dialect: str, family: str) -> PromptPlan:
        return planner.plan(
            prompt,
            dialect=dialect,
            family=family,
            chunking=self.options.chunking,
            embeddings=self._embeddings,
            t5_tokenizer=self.options.t5_tokenizer,
        )

    def _file(self) -> Path:
        if self.options.file is None:
            raise OptionsError("give --file FILE")
        return self.options.file


def read_prompts(file: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file (`-`: standard input) without their ends; empty lines are empty prompts.

    Raises ResourceMissing for a file that is not there, DataError for bytes that are not UTF-8.
    """
    from_stdin = str(file) == "-"
    if not from_stdin and not file.exists():
        raise ResourceMissing(f"{file}: no such file; give a text file with a prompt per line, or - for standard input")
    stream: BinaryIO
    with nullcontext(sys.stdin.buffer) if from_stdin else file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                name = "standard input" if from_stdin else file
                byte = f"byte {line[error.start]:#04x} at {error.start}"
                raise DataError(f"{name}: line {number} is not UTF-8 ({byte}); save it as UTF-8") from error
            yield text.removesuffix("\n").removesuffix("\r")
