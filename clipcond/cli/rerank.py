"""`clipcond rerank`: which pictures match a prompt, or each its own."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.app import command, stopped
from clipcond.cli.exit_codes import FAILED
from clipcond.cli.progress import progress
from clipcond.cli.render import on_terminal, print_json, stdout_console
from clipcond.wording import visible
from clipcond.workflows.rerank import RerankOptions, run

if TYPE_CHECKING:
    from rich.text import Text

    from clipcond.rerank.ranking import RankedImage, Ranking

_BAR = 10  # cells
_WIDE_ENOUGH = 56  # cells of a terminal that leave room for a file name beside the bar


@command
def rerank(
    images: Annotated[list[str], typer.Argument(help="Picture files, folders (their top level), or quoted patterns.")],
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            "-p",
            metavar="TEXT",
            help="The text to match; without it, each picture's own from its metadata.",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="mini, NAME/PRETRAINED, hf:ID, a folder.")
    ] = "mini",
    top: Annotated[int | None, typer.Option("--top", "-k", metavar="N", min=1, help="Keep the best K.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", metavar="X", min=-1, max=1, help="Keep pictures with at least this cosine."),
    ] = None,
    diversity: Annotated[
        float,
        typer.Option(
            "--diversity", metavar="X", min=0, max=1, help="0: by score alone; towards 1: unlike those before it."
        ),
    ] = 0.0,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into the folders below, too.")] = False,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="Pictures in one forward pass.")
    ] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON line per picture.")] = False,
    as_paths: Annotated[bool, typer.Option("--paths", help="Only the paths of kept pictures, for xargs.")] = False,
) -> None:
    """Score pictures against a prompt and sort them.

    A prompt of any length counts in full. The table shows what is kept, --json every picture. One that cannot be read
    is listed with the reason, and the rest goes on: the exit code is 3 only if no picture could be scored.
    """
    if as_json and as_paths:
        raise typer.BadParameter("--json and --paths exclude each other")
    options = RerankOptions(
        images=tuple(images),
        prompt=prompt,
        model=model,
        top=top,
        threshold=threshold,
        diversity=diversity,
        recursive=recursive,
        batch_size=batch_size,
    )
    try:
        with progress() as events:
            ranking = run(options, events)
    except KeyboardInterrupt:
        raise stopped("interrupted: nothing was ranked, and no file was changed") from None
    if as_json or not (as_paths or on_terminal()):
        for row in ranking.rows:
            print_json(row.to_json())
    elif as_paths:
        _write_paths(ranking)
    else:
        _show(ranking)
    if not (as_json or as_paths) or not ranking.kept:
        _summarise(ranking, threshold)
    if not ranking.scored:
        raise typer.Exit(FAILED)


def _write_paths(ranking: Ranking) -> None:
    """Write the kept paths as the file system spells them, whatever the terminal's encoding."""
    sys.stdout.flush()
    for row in ranking.kept:
        sys.stdout.buffer.write(os.fsencode(row.path) + b"\n")
    sys.stdout.buffer.flush()


def _show(ranking: Ranking) -> None:
    """Print a table of the kept pictures by rank, then errors in red."""
    from rich.table import Table
    from rich.text import Text

    console = stdout_console()
    prompts = {row.prompt for row in ranking.scored}
    if len(prompts) == 1:
        console.print(_heading(ranking.scored[0]))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rank", justify="right", no_wrap=True)
    bars = console.width >= _WIDE_ENOUGH
    if bars:
        table.add_column("", no_wrap=True, min_width=_BAR)
    table.add_column("cosine", justify="right", no_wrap=True)
    table.add_column("CLIPScore", justify="right", no_wrap=True)
    table.add_column("file", overflow="fold")
    cosines = [row.cosine or 0.0 for row in ranking.scored]
    for row in ranking.kept:
        cosine = row.cosine or 0.0
        name = Text(visible(str(row.path)))
        if len(prompts) > 1:
            name.append(f"\n{_brief(row.prompt or '')}", style="dim")
        numbers = Text(f"{cosine:.4f}"), Text(f"{row.clip_score:.4f}")
        table.add_row(Text(str(row.rank)), *([_bar(cosine, cosines)] if bars else []), *numbers, name)
    if ranking.kept:
        console.print(table)
    for row in ranking.errors:
        console.print(
            Text.assemble(("error ", "bold red"), (f"{visible(str(row.path))}: {visible(row.error or '')}", "red"))
        )


def _heading(row: RankedImage) -> Text:
    from rich.text import Text

    chunks = f" in {row.chunks} chunks" if (row.chunks or 1) > 1 else ""
    tokens = f"{row.content_tokens} token{'' if row.content_tokens == 1 else 's'}{chunks}"
    return Text.assemble(("prompt  ", "bold"), _brief(row.prompt or "", 200), (f"  ({tokens})", "dim"))


def _bar(cosine: float, cosines: list[float]) -> Text:
    """Draw a score between the least and the best of the run."""
    from rich.text import Text

    least, most = min(cosines), max(cosines)
    share = (cosine - least) / (most - least) if most > least else 1.0
    full = max(1, round(share * _BAR))
    return Text.assemble(("█" * full, "green"), ("░" * (_BAR - full), "dim"))


def _summarise(ranking: Ranking, threshold: float | None) -> None:
    """Print one line for people on stderr."""
    counts = f"{len(ranking.scored)} scored with {ranking.model}, {len(ranking.kept)} kept"
    if ranking.errors:
        counts += f", {len(ranking.errors)} with an error"
    if ranking.scored and not ranking.kept and threshold is not None:
        counts += f": the best cosine is {max(row.cosine or -1.0 for row in ranking.scored):.4f}, below {threshold:g}"
    typer.echo(counts, err=True)


def _brief(text: str, most: int = 60) -> str:
    text = visible(" ".join(text.split()))
    return text if len(text) <= most else text[: most - 1] + "…"
