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
from clipcond.workflows.tokens import ALL_FAMILIES, AUTO, REPEATED, TokenCounter, TokensOptions

if TYPE_CHECKING:
    from rich.console import Console

    from clipcond.workflows.events import Event
    from clipcond.workflows.tokens import CountedPrompt


class TokensRequest(NamedTuple):
    """Prompts to count, and the output to make.

    overwrite: a page that is there.   live: the user types, beginning with `options.prompt`.
    """

    options: TokensOptions
    as_json: bool = False
    fail_on_truncation: bool = False
    html: Path | None = None
    overwrite: bool = False
    live: bool = False


_FLAGS = {
    "--json": "as_json",
    "--fail-on-truncation": "fail_on_truncation",
    "--explain": "explain",
    "--stats": "stats",
    "--live": "live",
    "--overwrite": "overwrite",
}
_PATHS = {"--file": "file", "--html": "html", "--embeddings": "embeddings"}
_OUTPUT = ("as_json", "fail_on_truncation", "html", "overwrite", "live")


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

        check_output(request.html, "name another file, or --overwrite", overwrite=request.overwrite)
    counter, prompt = TokenCounter(request.options, _print_note), request.options.prompt
    if prompt is not None and not request.live:
        _note_file(prompt)
    if request.live:
        from clipcond.cli.tokens_live import type_prompt

        prompt = type_prompt(prompt or "", counter.plan)
        if prompt is None:
            return OK
    if prompt is not None:
        truncated = _one(counter.count(prompt), request, counter)
    elif request.options.infotext is not None:
        truncated = _one(counter.count_infotext(), request, counter)
    elif request.options.stats or request.html is not None:
        truncated = _collection(request, counter)
    else:
        truncated = _lines(request, counter)
    return CHECK_FAILED if request.fail_on_truncation and truncated else OK


def _print_note(event: Event) -> None:
    from clipcond.workflows.events import Note

    if isinstance(event, Note):
        print(f"note: {visible(event.text)}", file=sys.stderr)


def _note_file(prompt: str) -> None:
    """Say how a file is read, where the prompt is the name of one."""
    if not prompt or len(prompt) > 255 or any(map(str.isspace, prompt)) or not Path(prompt).is_file():
        return
    picture = prompt.lower().endswith((".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".avif"))
    flag = "--infotext" if picture else "--file"
    what = "the prompt in it" if picture else "each of its lines"
    print(f"note: {visible(prompt)} is a file: {flag} {visible(prompt)} counts {what}", file=sys.stderr)


def _one(counted: CountedPrompt, request: TokensRequest, counter: TokenCounter) -> bool:
    """Show one prompt in full; True if a stock pipeline would truncate it."""
    if request.as_json:
        print_json(counter.document(counted))
    else:
        _show(counted, explain=request.options.explain)
    if request.html is not None:
        from clipcond.pages.tokens import prompt_page

        notes = [counted.dialect_reason] if counted.dialect_reason else []
        other = counted.negative
        negative = None if other is None else (other.columns, other.analyses())
        if length := common_length(counted):
            notes.append(length)
        _write_page(request, prompt_page(counted.columns, counted.analyses(), notes, negative))
    return counted.truncated


def _show(counted: CountedPrompt, *, explain: bool) -> None:
    console = stdout_console()
    _show_side(counted, console, explain=explain)
    if counted.negative is not None:
        from rich.text import Text

        console.print()
        console.print(Text("negative prompt", style="bold reverse"))
        _show_side(counted.negative, console, explain=explain)
        console.print()
        console.print(common_length(counted))


def _show_side(counted: CountedPrompt, console: Console, *, explain: bool) -> None:
    from clipcond.cli.tokens_view import show, show_side_by_side

    analyses = counted.analyses()
    if len(counted.columns) > 1:
        show_side_by_side(counted.columns, analyses, console, explain=explain)
    else:
        show(counted.columns[0], console, analysis=analyses[0], explain=explain)


def common_length(counted: CountedPrompt) -> str:
    """Say in one line how long both sides become; empty without a negative prompt."""
    if counted.negative is None:
        return ""
    lengths = []
    for family, chunks in counted.common_chunks().items():
        most = max(chunks.values(), default=1)
        both = f"{most} chunk{'' if most == 1 else 's'} ({77 * most} rows)"
        how = "repeated" if family in REPEATED else "filled up with empty chunks"
        lengths.append(
            (family, f"both sides get {both}" + (f", the shorter {how}" if _differ(counted, family) else ""))
        )
    if len(lengths) == 1:
        return lengths[0][1]
    return "; ".join(f"{family}: {text}" for family, text in lengths)


def _differ(counted: CountedPrompt, family: str) -> bool:
    """Return True if the sides of a family have other numbers of chunks."""
    other = counted.negative
    sides = [
        [plan for plan in side.columns[0] if plan.family == family] for side in (counted, other) if side is not None
    ]
    first, second = ([len(e.chunks) for plan in plans for e in plan.encoders.values()] for plans in sides)
    return first != second


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
        from clipcond.prompt.analysis.plan_summary import counted as number_of

        many = f"{cut} of them" if total != 1 else "which is" if cut else "which is not"
        stderr_console().print(f"{number_of(total, 'prompt')}, {many} truncated by a stock pipeline")
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
        _write_page(request, survey_page(survey, plans, "standard input" if str(file) == "-" else file.name))
    return survey.over > 0


def _write_page(request: TokensRequest, page: str) -> None:
    from clipcond.files import write_file

    if request.html is not None:
        write_file(request.html, page, overwrite=request.overwrite)
        print(f"wrote {visible(str(request.html))}", file=sys.stderr)
