"""The output of `clipcond train --check`: a line for each thing that was looked at, worst ones in colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from clipcond.cli.exit_codes import CHECK_FAILED
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json, stdout_console
from clipcond.prompt.analysis.plan_summary import counted
from clipcond.wording import visible
from clipcond.workflows.preflight import Preflight, PreflightOptions, run

if TYPE_CHECKING:
    from rich.console import Console

    from clipcond.train.check import Check

_COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "stops": "bold red"}


def check_data(options: PreflightOptions, *, as_json: bool) -> None:
    """Look at data and settings and show what was found; exits with 1 where a run would stop."""
    with progress() as events:
        found = run(options, events)
    if as_json:
        print_json(found.to_json())
    else:
        _show(found, stdout_console())
    if found.stops:
        raise typer.Exit(CHECK_FAILED)


def _show(found: Preflight, console: Console) -> None:
    width = max(len(check.name) for check in found.checks)
    for check in found.checks:
        _show_check(check, width, console)
    stopping = sum(check.verdict == "stops" for check in found.checks)
    warnings = sum(check.verdict == "warning" for check in found.checks)
    end = f"a run would stop before its first step: {counted(stopping, 'reason')}" if stopping else "a run would start"
    console.print(end + (f"; {counted(warnings, 'warning')}" if warnings else ""), soft_wrap=True)


def _show_check(check: Check, width: int, console: Console) -> None:
    from rich.text import Text

    line = Text.assemble(
        (f"{check.verdict:8}", _COLOURS[check.verdict]), f" {check.name:{width}}  {visible(check.text)}"
    )
    console.print(line, soft_wrap=True)
    for example in check.examples:
        console.print(Text(" " * (width + 11) + visible(example), style="dim"), soft_wrap=True)
