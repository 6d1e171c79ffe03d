"""`clipcond rerank`: which pictures match a prompt, or each its own."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.app import FAILED, app

if TYPE_CHECKING:
    from rich.text import Text

    from clipcond.rerank.ranking import RankedImage, Ranking

_BAR = 10  # cells
_WIDE_ENOUGH = 56  # cells of a terminal that leave room for a file name beside the bar


@app.command()
def rerank(
    images: Annotated[list[str], typer.Argument(help="Picture files, folders (their top level), or quoted patterns.")],
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="The text to match; without it, each picture's own from its metadata."),
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="mini, NAME/PRETRAINED, hf:ID, or a folder.")] = "mini",
    top: Annotated[int | None, typer.Option("--top", "-k", min=1, help="Keep the best K.")] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=-1, max=1, help="Keep pictures with at least this cosine.")
    ] = None,
    diversity: Annotated[
        float,
        typer.Option("--diversity", min=0, max=1, help="0: by score alone; towards 1: unlike those before it."),
    ] = 0.0,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into the folders below, too.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures in one forward pass.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON line per picture.")] = False,
    as_paths: Annotated[bool, typer.Option("--paths", help="Only the paths of kept pictures, for xargs.")] = False,
) -> None:
    """Score pictures against a prompt, sort them, and say which to keep.

    A prompt of any length counts in full. The table shows what is kept, --json every picture. One that cannot be read
    is listed with the reason, and the rest goes on: the exit code is 3 only if no picture could be scored.
    """
    from clipcond.cli.render import print_json
    from clipcond.images.find import find_pictures

    if as_json and as_paths:
        raise typer.BadParameter("--json and --paths exclude each other")
    found = find_pictures(images, recursive=recursive)
    _note_empty(found.empty, recursive, fatal=not found.paths)
    ranking = _ranked(found.paths, prompt, model, top, threshold, diversity, batch_size)
    if as_json:
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


def _note_empty(empty: tuple[str, ...], recursive: bool, *, fatal: bool) -> None:
    """Name the sources without pictures; nothing at all is an error."""
    from clipcond.errors import ImageError

    more = "" if recursive else "; --recursive looks into the folders below"
    if fatal:
        raise ImageError(f"no pictures in {', '.join(empty)}{more}")
    for source in empty:
        typer.echo(f"note: no pictures in {source}{more}", err=True)


def _ranked(
    paths: tuple[object, ...],
    prompt: str | None,
    model: str,
    top: int | None,
    threshold: float | None,
    diversity: float,
    batch_size: int,
) -> Ranking:
    """Load the model and rank, with a bar on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from clipcond.cli.render import stderr_console
    from clipcond.rerank.ranking import rerank as rank_files
    from clipcond.rerank.scorer import Scorer

    console = stderr_console()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"loading {model}", total=len(paths))
        scorer = Scorer.load(model)
        for note in scorer.dual.notes:
            typer.echo(f"note: {note}", err=True)
        progress.update(task, description="scoring")
        return rank_files(
            [str(path) for path in paths],
            prompt,
            scorer=scorer,
            top=top,
            threshold=threshold,
            diversity=diversity,
            batch_size=batch_size,
            on_progress=lambda count: progress.advance(task, count),
        )


def _write_paths(ranking: Ranking) -> None:
    """The kept paths as the file system spells them, whatever the terminal's encoding."""
    sys.stdout.flush()
    for row in ranking.kept:
        sys.stdout.buffer.write(os.fsencode(row.path) + b"\n")
    sys.stdout.buffer.flush()


def _show(ranking: Ranking) -> None:
    """The table of what is kept, by rank, then errors in red."""
    from rich.table import Table
    from rich.text import Text

    from clipcond.cli.render import stdout_console

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
        name = Text(_plain(str(row.path)))
        if len(prompts) > 1:
            name.append(f"\n{_brief(row.prompt or '')}", style="dim")
        numbers = Text(f"{cosine:.4f}"), Text(f"{row.clip_score:.4f}")
        table.add_row(Text(str(row.rank)), *([_bar(cosine, cosines)] if bars else []), *numbers, name)
    if ranking.kept:
        console.print(table)
    for row in ranking.errors:
        console.print(
            Text.assemble(("error ", "bold red"), (f"{_plain(str(row.path))}: {_plain(row.error or '')}", "red"))
        )


def _heading(row: RankedImage) -> Text:
    from rich.text import Text

    chunks = f" in {row.chunks} chunks" if (row.chunks or 1) > 1 else ""
    tokens = f"{row.content_tokens} token{'' if row.content_tokens == 1 else 's'}{chunks}"
    return Text.assemble(("prompt  ", "bold"), _brief(row.prompt or "", 200), (f"  ({tokens})", "dim"))


def _bar(cosine: float, cosines: list[float]) -> Text:
    """The score's place between the least and the best of the run."""
    from rich.text import Text

    least, most = min(cosines), max(cosines)
    share = (cosine - least) / (most - least) if most > least else 1.0
    full = max(1, round(share * _BAR))
    return Text.assemble(("█" * full, "green"), ("░" * (_BAR - full), "dim"))


def _summarise(ranking: Ranking, threshold: float | None) -> None:
    """One line for people, on stderr."""
    counts = f"{len(ranking.scored)} scored with {ranking.model}, {len(ranking.kept)} kept"
    if ranking.errors:
        counts += f", {len(ranking.errors)} with an error"
    if ranking.scored and not ranking.kept and threshold is not None:
        counts += f": the best cosine is {max(row.cosine or -1.0 for row in ranking.scored):.4f}, below {threshold:g}"
    typer.echo(counts, err=True)


def _brief(text: str, most: int = 60) -> str:
    text = " ".join(_plain(text).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _plain(text: str) -> str:
    """What a terminal can be trusted with: a file name or a prompt may hold control characters."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "�" for letter in text)
