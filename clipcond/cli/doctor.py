"""`clipcond doctor`: a report on this machine. `clipcond models`: a list of the models that can be loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.exit_codes import CHECK_FAILED
from clipcond.cli.render import print_json, stderr_console, stdout_console
from clipcond.workflows.models import ModelList, ModelsOptions, run

if TYPE_CHECKING:
    from rich.table import Table

    from clipcond.models.catalogue import Model
    from clipcond.workflows.machine import Machine


_REPAIRED = (
    "needed: its operators do not fit this torch; `import clipcond` declares the missing ones. A matching pair: "
    "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
)


@command
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    fail_on_problem: Annotated[bool, typer.Option("--fail-on-problem", help="Exit 1 if anything is wrong.")] = False,
) -> None:
    """Report what this machine offers, and what to mend."""
    from clipcond.workflows.machine import inspect

    machine = inspect()
    if as_json:
        print_json(machine.to_json(), indent=2)
    else:
        stdout_console().print(_report(machine))
        _print_problems(machine)
    if fail_on_problem and machine.problems:
        raise typer.Exit(CHECK_FAILED)


@command
def models(
    contains: Annotated[
        str,
        typer.Argument(metavar="TEXT", help="List only names with this in them, of all models.", show_default=False),
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Also list what would have to be downloaded.")] = False,
    kind: Annotated[
        str | None, typer.Option("--kind", help="Of one kind: dual, pipeline, matching or detection.")
    ] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option("--folder", help="Look in this folder, too: a model, or several. Repeatable.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """List the models that can be loaded by name, by kind.

    Without TEXT or --all, those that need no download.
    """
    found = run(ModelsOptions(contains, everything, kind, tuple(folder or ())))
    if as_json:
        print_json(found.to_json(), indent=2)
        return
    if found.models:
        stdout_console().print(_list(found.models))
    _note(found, contains)


def _report(machine: Machine) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, value: str, note: str = "", style: str = "dim") -> None:
        table.add_row(name, Text.assemble(value, ("  " + note if note else "", style)))

    row("clipcond", machine.clipcond)
    row("python", machine.python)
    row("platform", machine.platform)
    for library in machine.libraries:
        bad = not library.works and (library.required or library.version is not None)
        note = "" if library.version is None else library.note
        row(library.name, library.version or "not installed", note, "red" if bad else "dim")
    row("torchvision repair", _REPAIRED if machine.torchvision_repaired else "not needed")
    processor = machine.processor
    row("processor", processor.name)
    row("cores", str(processor.cores), f"{processor.threads} torch threads" if processor.threads else "")
    row("bfloat16", "in hardware" if processor.bf16 else "emulated", "with AMX" if processor.amx else "")
    row("accelerators", ", ".join(machine.accelerators) or "none, everything runs on the processor")
    for model in (machine.mini, machine.emoji):
        size = _size(model.bytes) if model.complete else f"incomplete: no {' and no '.join(model.missing)}"
        row(f"model {model.name}", size, model.path or "")
    row("model cache", machine.hub.cache, "" if machine.hub.exists else "not there yet")
    row("downloads", "off (offline mode)" if machine.hub.offline else "allowed")
    return table


def _print_problems(machine: Machine) -> None:
    from rich.text import Text

    console = stderr_console()
    for problem in machine.problems:
        console.print(Text.assemble(("problem: ", "bold red"), problem.what, "\n         ", (problem.advice, "bold")))
    if not machine.problems:
        console.print(Text("no problems found", style="green"))


def _list(models: Sequence[Model]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("kind", no_wrap=True)
    table.add_column("model", overflow="fold")
    table.add_column("format", no_wrap=True)
    table.add_column("for", no_wrap=True)
    table.add_column("on disk", justify="right", no_wrap=True)
    before = ""
    for model in models:
        disk = Text(_size(model.bytes), style="green") if model.cached and model.bytes else Text("-", style="dim")
        kind, before = "" if model.kind == before else model.kind, model.kind
        table.add_row(kind, Text(model.spec), model.library, Text(", ".join(model.use) or "-"), disk)
    return table


def _note(found: ModelList, contains: str) -> None:
    console = stderr_console()
    if contains and not found.models:
        console.print(f"no model has {contains!r} in its name", markup=False)
    elif found.hidden:
        console.print(
            f"{found.hidden} more can be downloaded: --all lists them, and a part of a name finds them", markup=False
        )
    console.print("also: NAME@CHECKPOINT for a local open_clip file, hf:ID, or any folder", markup=False, style="dim")


def _size(count: int | None) -> str:
    """Write a number of bytes for people."""
    if not count:
        return "0"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
