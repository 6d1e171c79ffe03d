"""`clipcond expand`: the prompts that a template gives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.render import on_terminal, print_json
from clipcond.wording import visible
from clipcond.workflows.templates import ExpandOptions, run


@command
def expand(
    template: Annotated[
        str, typer.Argument(metavar="TEMPLATE", help="A prompt with `{a|b}` and `__name__`; put `--` before a dash.")
    ],
    count: Annotated[int, typer.Option("--count", "-n", metavar="N", min=1, help="How many prompts, at random.")] = 1,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Prompt i is the one of seed + i.")] = 0,
    everything: Annotated[bool, typer.Option("--all", help="Every combination, in the template's order.")] = False,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="With --all: at most so many.")] = 1000,
    wildcards: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A folder of lists (.txt), may be repeated; those of clipcond come after it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Fill in a template's alternatives and wildcards.

    Prints a prompt per line; warnings go to standard error. A line feed in a prompt is printed as a blank, so that
    a line is a prompt; --json keeps it.
    """
    found = run(
        ExpandOptions(
            template=template,
            count=count,
            seed=seed,
            everything=everything,
            limit=limit,
            wildcards=tuple(wildcards or ()),
        )
    )
    warnings = [{"code": w.code, "message": w.message, "start": w.start, "end": w.end} for w in found.warnings]
    if as_json:
        print_json({"template": template, "prompts": list(found.prompts), "warnings": warnings})
        return
    for prompt in found.prompts:
        line = " ".join(prompt.splitlines())
        typer.echo(visible(line) if on_terminal() else line)
    for warning in found.warnings:
        typer.echo(f"warning {warning.code}: {visible(warning.message)}", err=True)
