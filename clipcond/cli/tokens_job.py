"""The work of `clipcond tokens`, without Typer: a request, how a plain one is read, and how it is fulfilled."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clipcond.cli.main import CHECK_FAILED, OK
from clipcond.cli.render import print_json, stderr_console, stdout_console
from clipcond.errors import DataError, ResourceMissing
from clipcond.prompt import plan as planner
from clipcond.wording import visible

if TYPE_CHECKING:
    from clipcond.prompt.analysis.phrases import Analysis
    from clipcond.prompt.plan import PromptPlan

ALL_FAMILIES, AUTO = "all", "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for: one of `prompt`, `file` (`-` is standard input) and `live`, which may start with a prompt."""

    prompt: str | None = None
    file: Path | None = None
    family: str = "sd15"
    dialect: str = "plain"
    compare: str | None = None
    chunking: str | None = None
    embeddings: Path | None = None
    t5_tokenizer: str | None = None
    as_json: bool = False
    fail_on_truncation: bool = False
    explain: bool = False
    stats: bool = False
    html: Path | None = None
    live: bool = False


_FLAGS = {
    "--json": "as_json",
    "--fail-on-truncation": "fail_on_truncation",
    "--explain": "explain",
    "--stats": "stats",
    "--live": "live",
}
_PATHS = {"--file": "file", "--html": "html", "--embeddings": "embeddings"}


def problem_with(request: Request) -> str | None:
    """What is wrong with a request, in words for the one who made it; None when all is well."""
    if request.live:
        if request.file is not None:
            return "--live takes no --file"
    elif (request.prompt is None) == (request.file is None):
        return "give either a PROMPT or --file FILE"
    if request.stats and request.file is None:
        return "--stats needs --file FILE"
    if request.stats and request.compare:
        return "--stats counts one dialect; leave out --compare"
    if request.explain and request.file is not None:
        return "--explain is about one PROMPT; leave out --file"
    if request.chunking not in {None, *planner.CHUNKINGS}:
        return f"--chunking {request.chunking} does not exist; there are {', '.join(planner.CHUNKINGS)}"
    if request.compare and request.compare == request.dialect:
        return f"--compare {request.compare} is the same as --dialect {request.dialect}; name another"
    return None


def plain_request(words: Sequence[str]) -> Request | None:
    """The request that Typer would make of these words; None where there is a doubt, or a message to give.

    Read here: one prompt that does not start with a dash, the long options by their full names, values that exist.
    """
    choices = {
        "--family": (*planner.FAMILIES, ALL_FAMILIES),
        "--dialect": (*planner.DIALECTS, AUTO),
        "--compare": planner.DIALECTS,
        "--chunking": planner.CHUNKINGS,
    }
    found: dict[str, str | bool | Path] = {}
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            if "prompt" in found:
                return None
            found["prompt"] = word
        elif word in _FLAGS:
            found[_FLAGS[word]] = True
        elif name in _PATHS or name in choices:
            value = value if equals else next(left, "--")
            if (value.startswith("-") and value != "-") or value not in choices.get(name, (value,)):
                return None
            found[_PATHS.get(name, name[2:])] = Path(value) if name in _PATHS else value
        else:
            return None
    request = Request(**found)  # type: ignore[arg-type]
    return None if problem_with(request) else request


def run(request: Request) -> int:
    """Show what was asked for and give the exit code."""
    if request.html is not None:
        from clipcond.files import refuse_to_overwrite

        refuse_to_overwrite(request.html)
    plans = _Planner(request)
    if request.live:
        from clipcond.cli.tokens_live import type_prompt

        typed = type_prompt(request.prompt or "", plans.first)
        if typed is None:
            return OK
        truncated = _one(typed, request, plans)
    elif request.file is None:
        truncated = _one(request.prompt or "", request, plans)
    elif request.stats or request.html is not None:
        truncated = _collection(request.file, request, plans)
    else:
        truncated = _many(request.file, request, plans)
    return CHECK_FAILED if request.fail_on_truncation and truncated else OK


class _Planner:
    """Plans prompts as a request wants them; embeddings are looked for once."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.families = tuple(planner.FAMILIES) if request.family == ALL_FAMILIES else (request.family,)
        self.embeddings = None
        if request.embeddings is not None:
            from clipcond.prompt.embeddings import scan

            self.embeddings = scan(request.embeddings)
            for path, reason in self.embeddings.unreadable:
                print(f"{visible(str(path))}: {visible(reason)}", file=sys.stderr)
            if not self.embeddings:
                print(f"{visible(str(request.embeddings))}: no embeddings there", file=sys.stderr)

    def plans(self, prompt: str) -> tuple[list[list[PromptPlan]], str]:
        """The plans of a prompt, for each dialect those of all families; and why its dialect was chosen, where it was."""
        dialect, reason = self.request.dialect, ""
        if dialect == AUTO:
            from clipcond.prompt.dialects.detect import detect

            detection = detect(prompt)
            dialect, reason = detection.dialect, f"dialect {detection.dialect}: {detection.reason}"
        dialects = dict.fromkeys([dialect, self.request.compare or dialect])
        return [[self._plan(prompt, one, family) for family in self.families] for one in dialects], reason

    def first(self, prompt: str) -> PromptPlan:
        """The plan of a prompt for the first family in its own dialect."""
        return self.plans(prompt)[0][0][0]

    def _plan(self, prompt: str, dialect: str, family: str) -> PromptPlan:
        return planner.plan(
            prompt,
            dialect=dialect,
            family=family,
            chunking=self.request.chunking,
            embeddings=self.embeddings,
            t5_tokenizer=self.request.t5_tokenizer,
            steps=20,
        )


def _one(prompt: str, request: Request, planned: _Planner) -> bool:
    """Show one prompt in full; whether a stock pipeline would truncate it."""
    columns, reason = planned.plans(prompt)
    if reason:
        print(visible(reason), file=sys.stderr)
    if request.as_json:
        print_json(_document(columns, request))
    else:
        _show(columns, request)
    if request.html is not None:
        from clipcond.files import write_file
        from clipcond.pages.tokens import prompt_page

        write_file(request.html, prompt_page(columns, _analyses(columns), [reason] if reason else []))
        print(f"wrote {visible(str(request.html))}", file=sys.stderr)
    return _truncated(columns)


def _truncated(columns: Sequence[Sequence[PromptPlan]]) -> bool:
    return any(plan.truncated for plans in columns for plan in plans)


def _analyses(columns: Sequence[Sequence[PromptPlan]]) -> list[Analysis]:
    from clipcond.prompt.analysis.phrases import analyse

    return [analyse(plans[0]) for plans in columns]


def _document(columns: Sequence[Sequence[PromptPlan]], request: Request) -> dict[str, object]:
    """The JSON of one prompt: its plan, or all its plans where several were asked for."""
    plans = [plan for of_dialect in columns for plan in of_dialect]
    documents = [plan.to_json() for plan in plans]
    if request.explain:
        from clipcond.prompt.analysis.phrases import analyse

        for document, plan in zip(documents, plans, strict=True):
            document["analysis"] = analyse(plan).to_json()
    several = request.family == ALL_FAMILIES or request.compare is not None
    return {"prompt": plans[0].prompt, "plans": documents} if several else documents[0]


def _show(columns: Sequence[Sequence[PromptPlan]], request: Request) -> None:
    from clipcond.cli.tokens_view import show, show_side_by_side

    console, analyses = stdout_console(), _analyses(columns)
    if len(columns) > 1:
        show_side_by_side(columns, analyses, console, explain=request.explain)
    else:
        show(columns[0], console, analysis=analyses[0], explain=request.explain)


def _many(file: Path, request: Request, planned: _Planner) -> bool:
    """A line for each prompt of a file and each dialect; whether a stock pipeline would truncate any of them."""
    console, total, cut = None if request.as_json else stdout_console(), 0, 0
    for prompt in read_prompts(file):
        columns, _ = planned.plans(prompt)
        total, cut = total + 1, cut + _truncated(columns)
        if console is None:
            print_json(_document(columns, request))
        else:
            from clipcond.cli.tokens_view import show_line

            for plans in columns:
                show_line(total, plans[0], console)
    if console is not None:
        stderr_console().print(f"{total} prompts, {cut} of them truncated by a stock pipeline")
    return cut > 0


def _collection(file: Path, request: Request, planned: _Planner) -> bool:
    """A file of prompts in numbers, and as a page; whether a stock pipeline would truncate any of them."""
    from clipcond.prompt.analysis.collection import survey

    found = survey(read_prompts(file), dialect=request.dialect)
    if request.as_json:
        print_json(found.to_json())
    else:
        from clipcond.cli.tokens_stats import show_survey

        show_survey(found, stdout_console())
    if request.html is not None:
        from clipcond.files import write_file
        from clipcond.pages.tokens import survey_page

        plans = [planned.first(long.prompt) for long in found.longest_prompts]
        write_file(request.html, survey_page(found, plans, "standard input" if str(file) == "-" else file.name))
        print(f"wrote {visible(str(request.html))}", file=sys.stderr)
    return found.over > 0


def read_prompts(file: Path) -> Iterator[str]:
    """The lines of a UTF-8 file (`-`: standard input) without their ends; empty lines are empty prompts.

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
