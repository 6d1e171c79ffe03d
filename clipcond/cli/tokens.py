"""`clipcond tokens`: how CLIP will split a prompt, and what a stock pipeline would lose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli.app import app
from clipcond.cli.tokens_job import Request, fulfil
from clipcond.prompt.plan import Dialect, Family


@app.command()
def tokens(
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            help="The prompt, or `-` for one per line of standard input; put `--` before a leading dash.",
            show_default=False,
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
    if prompt == "-":
        prompt, file = None, Path("-")
    request = Request(
        prompt=prompt,
        file=file,
        family=family,
        dialect=dialect,
        as_json=as_json,
        fail_on_truncation=fail_on_truncation,
    )
    raise typer.Exit(fulfil(request))
