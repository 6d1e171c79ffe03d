"""The work of `clipcond tokens`, without Typer: a request, how a plain one is read, and how it is fulfilled."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from clipcond.cli.launch import CHECK_FAILED, OK
from clipcond.cli.render import print_json, stderr_console, stdout_console
from clipcond.errors import DataError, ResourceMissing
from clipcond.prompt import plan as planner


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for: exactly one of `prompt` and `file` (`-` is standard input)."""

    prompt: str | None = None
    file: Path | None = None
    family: str = "sd15"
    dialect: str = "plain"
    as_json: bool = False
    fail_on_truncation: bool = False


def plain_request(words: Sequence[str]) -> Request | None:
    """The request that Typer would make of these words; None where there is a doubt, or a message to give.

    Read here: one prompt that does not start with a dash, the long options by their full names, values that exist.
    """
    flags = {"--json": "as_json", "--fail-on-truncation": "fail_on_truncation"}
    choices = {"--family": planner.FAMILIES, "--dialect": planner.DIALECTS}
    found: dict[str, str | bool] = {}
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            if "prompt" in found:
                return None
            found["prompt"] = word
        elif word in flags:
            found[flags[word]] = True
        elif name in {"--file", *choices}:
            value = value if equals else next(left, "--")
            if (value.startswith("-") and value != "-") or value not in choices.get(name, (value,)):
                return None
            found[name[2:]] = value
        else:
            return None
    if ("prompt" in found) == ("file" in found):
        return None
    return Request(**found | ({"file": Path(str(found["file"]))} if "file" in found else {}))  # type: ignore[arg-type]


def fulfil(request: Request) -> int:
    """Show what was asked for and give the exit code."""
    truncated = _one(request.prompt or "", request) if request.file is None else _many(request.file, request)
    return CHECK_FAILED if request.fail_on_truncation and truncated else OK


def _one(prompt: str, request: Request) -> bool:
    """Show one prompt in full; whether a stock pipeline would truncate it."""
    planned = planner.plan(prompt, dialect=request.dialect, family=request.family)
    if request.as_json:
        print_json(planned.to_json())
    else:
        from clipcond.cli.tokens_view import show

        show(planned, stdout_console())
    return planned.truncated


def _many(file: Path, request: Request) -> bool:
    """A line for each prompt of a file; whether a stock pipeline would truncate any of them."""
    console, total, cut = None if request.as_json else stdout_console(), 0, 0
    for prompt in read_prompts(file):
        planned = planner.plan(prompt, dialect=request.dialect, family=request.family)
        total, cut = total + 1, cut + planned.truncated
        if console is None:
            print_json(planned.to_json())
        else:
            from clipcond.cli.tokens_view import show_line

            show_line(total, planned, console)
    if console is not None:
        stderr_console().print(f"{total} prompts, {cut} of them truncated by a stock pipeline")
    return cut > 0


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
