"""`clipcond search`: pictures by words, by other pictures, and by sums of both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.exit_codes import FAILED
from clipcond.cli.gallery_options import BatchSize, Model, NoCache, Recursive, gallery_options
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json
from clipcond.cli.rerank_run import OutputOptions, sheet, write_files, write_paths
from clipcond.cli.rerank_table import show
from clipcond.workflows.search import DEFAULT_TOP, SearchOptions, run

if TYPE_CHECKING:
    from clipcond.rerank.rows import Ranking


@command
def search(
    folder: Annotated[
        str, typer.Argument(help="A folder of pictures, a quoted pattern, a picture, or a folder that embed made.")
    ],
    query: Annotated[str, typer.Argument(help='Words, a picture\'s file, or a sum: "2:cat + red scarf - night".')],
    top: Annotated[int, typer.Option("--top", "-k", help="Pictures to show.")] = DEFAULT_TOP,
    min_score: Annotated[float | None, typer.Option("--min-score", help="The least cosine.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="Changed on this date or later: 2026-01-31.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Changed on this date or earlier.")] = None,
    min_pixels: Annotated[int, typer.Option("--min-pixels", min=0, help="The least width × height.")] = 0,
    within: Annotated[str | None, typer.Option("--in", help="A pattern for the path: '*/holiday/*'.")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare every vector; otherwise an index searches more than 200,000.")
    ] = False,
    index: Annotated[bool, typer.Option("--index", help="Use an index for fewer pictures, too.")] = False,
    recursive: Recursive = False,
    model: Model = "mini",
    batch_size: BatchSize = 32,
    no_cache: NoCache = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON line per picture found.")] = False,
    as_paths: Annotated[bool, typer.Option("--paths", help="Only the paths.")] = False,
    print0: Annotated[bool, typer.Option("--print0", help="The same, each ended by NUL, for xargs -0.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="A contact sheet of what was found.")] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="All in order, of an index those found: .csv, .tsv, .jsonl, .parquet.")
    ] = None,
) -> None:
    """Find pictures by words, by a picture, or by a sum of both.

    Pictures that were looked at before are remembered; only new and changed ones are embedded. More than 200,000 are
    searched through an index, whose recall on these pictures is measured and said; --exact compares all.
    """
    output = OutputOptions(as_json=as_json, as_paths=as_paths, print0=print0, csv=csv, html=html)
    options = SearchOptions(
        gallery=gallery_options([folder], model, recursive, batch_size, no_cache), query=query, top=top,
        min_score=min_score, since=since, until=until, min_pixels=min_pixels, within=within, exact=exact, index=index,
    )  # fmt: skip
    with progress() as events:
        result = run(options, events)
        ranking = result.ranking
        page = None if html is None else sheet(_found(ranking), events)
    if output.lines:
        for row in (*ranking.kept, *ranking.errors):
            print_json(row.to_json())
    elif as_paths or print0:
        write_paths(ranking, b"\0" if print0 else b"\n")
    else:
        show(ranking)
    write_files(ranking, page, output)
    typer.echo(f"{len(ranking.kept)} of {result.searched:,} pictures, {ranking.embedded:,} newly embedded", err=True)
    if result.index is not None:
        typer.echo(result.index.line(), err=True)
    if not ranking.kept:
        raise typer.Exit(FAILED)


def _found(ranking: Ranking) -> Ranking:
    """The ranking without the pictures that were not found."""
    return replace(ranking, rows=(*ranking.kept, *ranking.errors))
