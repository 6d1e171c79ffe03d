"""`clipcond report`: the page of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli.app import command
from clipcond.files import check_output, write_file
from clipcond.wording import visible


@command
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training run, done or not.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Another file than RUN/report.html.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
) -> None:
    """Write the page of a training run.

    Its curves, recall, drift, and the captions that fare best and worst, in one file that loads nothing. RUN/report.html,
    which training itself writes at its end, is always replaced.
    """
    if out is not None:
        check_output(out, overwrite=force)
    typer.echo(visible(str(write_report(run, out))))


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the page of a run, its own `report.html` by default, and return its path. Raises DataError."""
    from clipcond.pages.run_report import run_report
    from clipcond.workflows.run_record import read_run

    page = run_report(read_run(run))
    return write_file(run / "report.html" if out is None else out, page, overwrite=True)
