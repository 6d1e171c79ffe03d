"""`clipcond embed`: the embeddings of a whole collection, as Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.app import command, stopped
from clipcond.cli.exit_codes import FAILED
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json
from clipcond.wording import visible
from clipcond.workflows.embed import EmbedOptions, run

if TYPE_CHECKING:
    from clipcond.workflows.embed import EmbedReport

_SHOWN = 5  # errors on the terminal


@command
def embed(
    sources: Annotated[
        list[str],
        typer.Argument(help="Folders (with all below), tars, files, quoted patterns, or addresses such as s3://…"),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the Parquet files; a run that stopped goes on.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="mini, emoji, NAME/PRETRAINED, hf:ID, or a folder.")
    ] = "mini",
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="Of the image encoder: fp32 (exact), bf16, fp16, or auto: half of it where this machine is faster so.",
        ),
    ] = "fp32",
    device: Annotated[
        str | None, typer.Option(metavar="TEXT", help="cpu, cuda, …; CUDA where there is one.", show_default=False)
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(
            "--view", help="What the model sees: crop (the centre), pad, or tiles; by default as its config says."
        ),
    ] = None,
    draft: Annotated[
        bool, typer.Option("--draft", help="Decode large JPEGs at a part of their size: quicker, not quite exact.")
    ] = False,
    store: Annotated[str, typer.Option("--store", help="Numbers in the files: float32, or float16.")] = "float32",
    shard_size: Annotated[int, typer.Option("--shard-size", min=1, help="Pictures in a file.")] = 1024,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Pictures in one forward pass; on a CPU 8 at most.")
    ] = 32,
    engine: Annotated[
        str, typer.Option("--engine", help="local (this process), or ray: workers here or on a cluster (RAY_ADDRESS).")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option("--workers", help="Of Ray; by default one for each GPU, or each CPU.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Write the embeddings of a collection as Parquet files.

    Their folder stands for the pictures in rerank, search and the other commands that find, which read no picture then.

    A run that was stopped goes on with the files that it lacks; pictures that came since then are added. Those that cannot
    be read are listed beside the files, and the rest goes on: the exit code is 3 only if no picture could be embedded.
    """
    options = EmbedOptions(
        sources=tuple(sources),
        out=out,
        model=model,
        precision=precision,  # type: ignore[arg-type]
        device=device,
        view=view,  # type: ignore[arg-type]
        draft=draft,
        stored=store,  # type: ignore[arg-type]
        shard_size=shard_size,
        batch_size=batch_size,
        engine=engine,  # type: ignore[arg-type]
        workers=workers,
    )
    try:
        with progress() as events:
            report = run(options, events)
    except KeyboardInterrupt:
        raise stopped("interrupted: the files that are there are complete; the same command goes on") from None
    if as_json:
        print_json(report.to_json(), indent=2)
    else:
        _show(report, out)
    if not report.pictures:
        raise typer.Exit(FAILED)


def _show(report: EmbedReport, out: Path) -> None:
    files = f"{report.shards:,} file{'' if report.shards == 1 else 's'}"
    typer.echo(f"{report.pictures:,} pictures in {files} of {visible(str(out))}, {report.new:,} of them new")
    for path, error in report.errors[:_SHOWN]:
        typer.echo(f"note: {visible(path)}: {visible(error)}", err=True)
    if len(report.errors) > _SHOWN:
        typer.echo(
            f"note: {len(report.errors) - _SHOWN:,} more with an error: {visible(str(out))}/*.errors.jsonl", err=True
        )
