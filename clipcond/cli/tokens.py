"""`clipcond tokens`: how CLIP will split a prompt, and what a stock pipeline would lose."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from clipcond.cli.app import CHECK_FAILED, app
from clipcond.prompt.plan import Dialect, Family


@app.command()
def tokens(
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT", help="The prompt; put `--` before one that starts with a dash.", show_default=False
        ),
    ] = None,
    family: Annotated[Family, typer.Option(help="What the prompt is for: the encoders of that model family.")] = "sd15",
    dialect: Annotated[Dialect, typer.Option(help="The syntax of the prompt.")] = "plain",
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read a prompt per line from FILE, or from standard input with `-`.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON and nothing else; JSON lines with --file.")
    ] = False,
    fail_on_truncation: Annotated[
        bool,
        typer.Option("--fail-on-truncation", help="Exit with 1 when a stock pipeline would drop part of a prompt."),
    ] = False,
) -> None:
    """Count the tokens of a prompt, show its chunks, and what a stock pipeline would drop."""
    if (prompt is None) == (file is None):
        raise typer.BadParameter("give either a PROMPT or --file FILE")
    if file is not None:
        truncated = _many(file, dialect=dialect, family=family, as_json=as_json)
    else:
        truncated = _one(prompt or "", dialect=dialect, family=family, as_json=as_json)
    if fail_on_truncation and truncated:
        raise typer.Exit(CHECK_FAILED)


def _one(prompt: str, *, dialect: str, family: str, as_json: bool) -> bool:
    """Show one prompt in full; whether a stock pipeline would truncate it."""
    from clipcond.cli.render import print_json, stdout_console
    from clipcond.prompt.plan import plan

    planned = plan(prompt, dialect=dialect, family=family)
    if as_json:
        print_json(planned.to_json())
    else:
        from clipcond.cli.tokens_view import show

        show(planned, stdout_console())
    return planned.truncated


def _many(file: Path, *, dialect: str, family: str, as_json: bool) -> bool:
    """A line for each prompt of a file; whether a stock pipeline would truncate any of them."""
    from clipcond.cli.render import print_json, stderr_console, stdout_console
    from clipcond.prompt.plan import plan

    console, total, cut = None if as_json else stdout_console(), 0, 0
    for prompt in read_prompts(file):
        planned = plan(prompt, dialect=dialect, family=family)
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
    from clipcond.errors import DataError, ResourceMissing

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
