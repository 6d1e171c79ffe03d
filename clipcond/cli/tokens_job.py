"""The work of `clipcond tokens`, without Typer: a request, how a plain one is read, and how it is fulfilled."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clipcond.cli.launch import CHECK_FAILED, OK
from clipcond.cli.render import print_json, stderr_console, stdout_console, visible
from clipcond.errors import DataError, ResourceMissing
from clipcond.prompt import plan as planner

if TYPE_CHECKING:
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
_PATHS = {"--file": "file", "--html": "html"}


def contradiction(request: Request) -> str | None:
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
    return None if contradiction(request) else request


def fulfil(request: Request) -> int:
    """Show what was asked for and give the exit code."""
    if request.html is not None:
        from clipcond.cli.tokens_html import refuse_to_overwrite

        refuse_to_overwrite(request.html)
    if request.live:
        from clipcond.cli.tokens_live import type_prompt

        typed = type_prompt(request.prompt or "", lambda text: _plans(text, request)[0][0])
        if typed is None:
            return OK
        truncated = _one(typed, request)
    elif request.file is None:
        truncated = _one(request.prompt or "", request)
    elif request.stats or request.html is not None:
        truncated = _collection(request.file, request)
    else:
        truncated = _many(request.file, request)
    return CHECK_FAILED if request.fail_on_truncation and truncated else OK


def _plans(prompt: str, request: Request) -> tuple[list[PromptPlan], str]:
    """The plans of a prompt for all families and dialects asked for, and why its dialect was chosen, where it was."""
    dialect, reason = request.dialect, ""
    if dialect == AUTO:
        from clipcond.prompt.dialects import detect

        detection = detect(prompt)
        dialect, reason = detection.dialect, f"dialect {detection.dialect}: {detection.reason}"
    families = planner.FAMILIES if request.family == ALL_FAMILIES else (request.family,)
    dialects = dict.fromkeys([dialect, request.compare or dialect])
    return [planner.plan(prompt, dialect=one, family=family) for family in families for one in dialects], reason


def _one(prompt: str, request: Request) -> bool:
    """Show one prompt in full; whether a stock pipeline would truncate it."""
    plans, reason = _plans(prompt, request)
    if reason:
        print(visible(reason), file=sys.stderr)
    if request.as_json:
        print_json(_document(plans, request))
    else:
        _show(plans, request)
    if request.html is not None:
        from clipcond.cli.tokens_html import prompt_page, write_page
        from clipcond.prompt.analysis import analyse

        write_page(request.html, prompt_page(plans, [analyse(plan) for plan in plans], [reason] if reason else []))
        print(f"wrote {visible(str(request.html))}", file=sys.stderr)
    return any(plan.truncated for plan in plans)


def _document(plans: Sequence[PromptPlan], request: Request) -> dict[str, object]:
    """The JSON of one prompt: its plan, or all its plans where several were asked for."""
    documents = [plan.to_json() for plan in plans]
    if request.explain:
        from clipcond.prompt.analysis import analyse

        for document, plan in zip(documents, plans, strict=True):
            document["analysis"] = analyse(plan).to_json()
    several = request.family == ALL_FAMILIES or request.compare is not None
    return {"prompt": plans[0].prompt, "plans": documents} if several else documents[0]


def _show(plans: Sequence[PromptPlan], request: Request) -> None:
    from clipcond.cli.tokens_view import show, show_side_by_side
    from clipcond.prompt.analysis import analyse

    console = stdout_console()
    step = 2 if request.compare else 1  # with --compare the plans of a family stand together
    for first in range(0, len(plans), step):
        same = plans[first : first + step]
        if first:
            console.print()
        if len(same) > 1:
            show_side_by_side(same, [analyse(plan) for plan in same], console)
        else:
            show(same[0], console, analysis=analyse(same[0]), explain=request.explain)


def _many(file: Path, request: Request) -> bool:
    """A line for each prompt of a file; whether a stock pipeline would truncate any of them."""
    console, total, cut = None if request.as_json else stdout_console(), 0, 0
    for prompt in read_prompts(file):
        plans, _ = _plans(prompt, request)
        total, cut = total + 1, cut + any(plan.truncated for plan in plans)
        if console is None:
            print_json(_document(plans, request))
        else:
            from clipcond.cli.tokens_view import show_line

            for plan in plans:
                show_line(total, plan, console)
    if console is not None:
        stderr_console().print(f"{total} prompts, {cut} of them truncated by a stock pipeline")
    return cut > 0


def _collection(file: Path, request: Request) -> bool:
    """A file of prompts in numbers, and as a page; whether a stock pipeline would truncate any of them."""
    from clipcond.prompt.collection import survey

    found = survey(read_prompts(file), dialect=request.dialect)
    if request.as_json:
        print_json(found.to_json())
    else:
        from clipcond.cli.tokens_stats import show_survey

        show_survey(found, stdout_console())
    if request.html is not None:
        from clipcond.cli.tokens_html import survey_page, write_page

        plans = [_plans(long.prompt, request)[0][0] for long in found.longest_prompts]
        write_page(request.html, survey_page(found, plans, "standard input" if str(file) == "-" else file.name))
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
