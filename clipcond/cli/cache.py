"""`clipcond cache`: the embeddings that ranking remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.exit_codes import FAILED
from clipcond.cli.render import print_json
from clipcond.wording import visible
from clipcond.workflows.cache import CacheOptions, run

if TYPE_CHECKING:
    from clipcond.encode.embedding_tables import CacheInfo

_MIB = 2**20


@command
def cache(
    what: Annotated[str, typer.Argument(help="info, prune (those unused for longest go) or clear (all go).")] = "info",
    to: Annotated[str | None, typer.Option("--to", help="Size to prune to, such as 500MB.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Show, prune or clear the embeddings of earlier runs.

    They lie in the folder CLIPCOND_CACHE, or in the user's cache folder, and beside them the indexes of large collections,
    which only clear removes. Clearing costs time and nothing else.
    """
    report = run(CacheOptions(what=what, to=to))
    for line in (*report.notes, *report.problems):
        typer.echo(f"note: {visible(line)}", err=True)
    if as_json:
        print_json(report.to_json(), indent=2)
    else:
        if what != "info":
            typer.echo(f"{report.removed:,} embedding{'' if report.removed == 1 else 's'} removed")
        _show(report.info)
        for each in report.indexes:
            typer.echo(
                f"  index of {visible(', '.join(each.sources))} ({visible(each.model)}): {each.bytes / _MIB:,.1f} MiB"
            )
    if report.problems:
        raise typer.Exit(FAILED)


def _show(info: CacheInfo) -> None:
    typer.echo(f"{visible(str(info.path))}: {info.bytes / _MIB:,.1f} of {info.limit / _MIB:,.0f} MiB")
    typer.echo(f"{info.embeddings:,} embeddings, {info.files:,} files known by their times")
    for space in info.spaces:
        typer.echo(
            f"  {visible(space.name) or 'a model'}: {space.embeddings:,} of {space.width} numbers, {space.dtype}"
        )
