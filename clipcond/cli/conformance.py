"""`clipcond conformance`: another tool's prompt embeds beside clipcond's, case by case."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.exit_codes import CHECK_FAILED
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json, stderr_console, stdout_console
from clipcond.wording import visible
from clipcond.workflows.conformance import TOLERANCE, ConformanceOptions, run

if TYPE_CHECKING:
    from clipcond.workflows.conformance import Conformance, Outcome

MOST_LETTERS = 38  # of a prompt in the table
_STYLES = {"same": "green", "differs": "yellow", "cannot": "red"}


@command
def conformance(
    tool: Annotated[
        str,
        typer.Option(
            "--tool", help="compel, sd_embed or lpw, which you have installed, or MODULE:FUNCTION of your own."
        ),
    ],
    path: Annotated[
        Path | None,
        typer.Option("--path", help="A folder that holds the tool, if it is not installed.", show_default=False),
    ] = None,
    dialect: Annotated[
        str | None, typer.Option("--dialect", help="Of your own function: whose syntax it reads.", show_default="a1111")
    ] = None,
    weighting: Annotated[
        str | None, typer.Option("--weighting", help="Of your own function.", show_default="the dialect's own")
    ] = None,
    chunking: Annotated[
        str | None, typer.Option("--chunking", help="Of your own function.", show_default="the dialect's own")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    fail_on_difference: Annotated[
        bool, typer.Option("--fail-on-difference", help="Exit 1 unless every case is the same.")
    ] = False,
) -> None:
    """Compare another tool's prompt embeds with clipcond's.

    Both encode the same prompts with one tiny pipeline that is made of a rule. A case is the same,
    differs (from which token on, and how much), or the tool cannot do it. A function of your own
    takes a pipeline, a prompt and a negative prompt, and returns the states of both, (1, T, D) each.
    """
    with progress() as events:
        found = run(ConformanceOptions(tool, path, dialect, weighting, chunking), events=events)
    if as_json:
        print_json(found.to_json(), indent=2)
    else:
        _show(found)
    if fail_on_difference and found.count("same") < len(found.outcomes):
        raise typer.Exit(CHECK_FAILED)


def _show(found: Conformance) -> None:
    from rich.table import Table
    from rich.text import Text

    stderr_console().print(
        f"{found.tool} {found.version or '(no version)'} beside dialect {found.dialect}, weighting {found.weighting}, "
        f"chunking {found.chunking}; same: to {TOLERANCE:g}",
        style="dim",
    )
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for each in found.outcomes:
        said = Text("") if each.verdict == "same" else Text(f"{_short(each.prompt)}\n{visible(described(each))}")
        table.add_row(Text(each.verdict, style=_STYLES[each.verdict]), each.case, said)
    stdout_console().print(table)
    same, differs, cannot = (found.count(verdict) for verdict in ("same", "differs", "cannot"))
    stdout_console().print(f"{same} same, {differs} differ{'s' if differs == 1 else ''}, {cannot} cannot")


def _short(prompt: str) -> str:
    return visible(prompt if len(prompt) <= MOST_LETTERS else f"{prompt[: MOST_LETTERS - 1]}…")


def described(outcome: Outcome) -> str:
    """Say in words where a case differs and how much; of one that is the same, nothing."""
    if outcome.verdict == "same":
        return ""
    if outcome.message is not None:
        return outcome.message
    said = []
    if outcome.lengths is not None:
        said.append(f"{outcome.lengths[0]} positions, ours {outcome.lengths[1]}")
    if outcome.first is not None:
        first = outcome.first
        place = f"{first.side}, chunk {first.chunk}, position {first.position} ({first.token})"
        many = f"{outcome.beyond} position{'s' if outcome.beyond > 1 else ''}"
        said.append(f"{place}: {first.difference:.2g}; {many}, at most {outcome.difference:.2g}")
    return "; ".join(said)
