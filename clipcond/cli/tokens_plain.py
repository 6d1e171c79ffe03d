"""`clipcond tokens` without Typer: a request from plain words, and its output."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clipcond.cli.exit_codes import CHECK_FAILED, OK
from clipcond.cli.render import print_json, stderr_console, stdout_console
from clipcond.errors import OptionsError
from clipcond.prompt import plan as planner
from clipcond.wording import visible
from clipcond.workflows.tokens import ALL_FAMILIES, AUTO, TokenCounter, TokensOptions

if TYPE_CHECKING:
    from clipcond.workflows.events import Event
    from clipcond.workflows.tokens import CountedPrompt


class TokensRequest(NamedTuple):
    """Prompts to count, and the output to make. live: the user types, beginning with `options.prompt`."""

    options: TokensOptions
    as_json: bool = False
    fail_on_truncation: bool = False
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
_OUTPUT = ("as_json", "fail_on_truncation", "html", "live")


def request_of(**given: object) -> TokensRequest:
    """Build a request from all options by their names. Raises OptionsError for those that contradict one another."""
    output = {name: given.pop(name) for name in _OUTPUT if name in given}
    if output.get("live"):
        if given.get("file") is not None:
            raise OptionsError("--live takes no --file")
        given["prompt"] = given.get("prompt") or ""
    return TokensRequest(TokensOptions(**given), **output)  # type: ignore[arg-type]


def plain_request(words: Sequence[str]) -> TokensRequest | None:
    """Build the request that Typer would make of these words; None where there is a doubt, or a message to give.

    Read here: one prompt that does not start with a dash, the long options by their full names, values that exist.
    """
    choices = {
        "--family": (*planner.FAMILIES, ALL_FAMILIES),
        "--dialect": (*planner.DIALECTS, AUTO),
        "--compare": planner.DIALECTS,
        "--chunking": planner.CHUNKINGS,
    }
    found: dict[str, object] = {}
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
    try:
        return request_of(**found)
    except OptionsError:
        return None


def run(request: TokensRequest) -> int:
    """Count, show, and return the exit code."""
    if request.html is not None:
        from clipcond.files import check_output

        check_output(request.html)
    counter, prompt = TokenCounter(request.options, _print_note), request.options.prompt
    if request.live:
        from clipcond.cli.tokens_live import type_prompt

        prompt = type_prompt(prompt or "", counter.plan)
        if prompt is None:
            return OK
    if prompt is not None:
        truncated = _one(prompt, request, counter)
    elif request.options.stats or request.html is not None:
        truncated = _collection(request, counter)
    else:
        truncated = _lines(request, counter)
    return CHECK_FAILED if request.fail_on_truncation and truncated else OK


def _print_note(event: Event) -> None:
    from clipcond.workflows.events import Note

    if isinstance(event, Note):
        print(visible(event.text), file=sys.stderr)


def _one(prompt: str, request: TokensRequest, counter: TokenCounter) -> bool:
    """Show one prompt in full; True if a stock pipeline would truncate it."""
    counted = counter.count(prompt)
    if request.as_json:
        print_json(counter.document(counted))
    else:
        _show(counted, explain=request.options.explain)
    if request.html is not None:
        from clipcond.pages.tokens import prompt_page

        notes = [counted.dialect_reason] if counted.dialect_reason else []
        _write_page(request.html, prompt_page(counted.columns, counted.analyses(), notes))
    return counted.truncated


def _show(counted: CountedPrompt, *, explain: bool) -> None:
    from clipcond.cli.tokens_view import show, show_side_by_side

    console, analyses = stdout_console(), counted.analyses()
    if len(counted.columns) > 1:
        show_side_by_side(counted.columns, analyses, console, explain=explain)
    else:
        show(counted.columns[0], console, analysis=analyses[0], explain=explain)


def _lines(request: TokensRequest, counter: TokenCounter) -> bool:
    """Show a line for each prompt of a file and each dialect; True if a stock pipeline would truncate any of them."""
    console, total, cut = None if request.as_json else stdout_console(), 0, 0
    for counted in counter.count_lines():
        total, cut = total + 1, cut + counted.truncated
        if console is None:
            print_json(counter.document(counted))
        else:
            from clipcond.cli.tokens_view import show_line

            for plans in counted.columns:
                show_line(total, plans[0], console)
    if console is not None:
        stderr_console().print(f"{total} prompts, {cut} of them truncated by a stock pipeline")
    return cut > 0


def _collection(request: TokensRequest, counter: TokenCounter) -> bool:
    """Show a file of prompts in numbers, and as a page; True if a stock pipeline would truncate any of them."""
    survey, file = counter.survey(), request.options.file
    if request.as_json:
        print_json(survey.to_json())
    else:
        from clipcond.cli.tokens_stats import show_survey

        show_survey(survey, stdout_console())
    if request.html is not None and file is not None:
        from clipcond.pages.tokens import survey_page

        plans = [counter.plan(long.prompt) for long in survey.longest_prompts]
        _write_page(request.html, survey_page(survey, plans, "standard input" if str(file) == "-" else file.name))
    return survey.over > 0


def _write_page(path: Path, page: str) -> None:
    from clipcond.files import write_file

    write_file(path, page)
    print(f"wrote {visible(str(path))}", file=sys.stderr)
