"""`clipcond compare`: two generators on the same prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json, stdout_console
from clipcond.cli.rerank_table import error_lines
from clipcond.wording import visible
from clipcond.workflows.compare import CompareOptions, CompareReport, run

if TYPE_CHECKING:
    from rich.table import Table


@command
def compare(
    first: Annotated[
        str, typer.Argument(help="Pictures of one generator: a folder, a tar, a quoted pattern; or a table.")
    ],
    second: Annotated[str, typer.Argument(help="Those of the other, on the same prompts.")],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="One for all; without it, each picture's own.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="mini, emoji, NAME/PRETRAINED, hf:ID, or a folder.")
    ] = "mini",
    score: Annotated[
        str | None, typer.Option("--score", "-s", help="As for rerank (cosine); of tables, columns of theirs (score).")
    ] = None,
    aesthetic: Annotated[Path | None, typer.Option("--aesthetic", help="A head's file, .pth or .safetensors.")] = None,
    view: Annotated[str | None, typer.Option("--view", help="What the model sees: crop, pad or tiles.")] = None,
    noise: Annotated[
        float | None,
        typer.Option("--noise", help="Differences up to this are ties; by default what scoring is off by."),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into the folders below, too.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures in one forward pass.")] = 32,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Neither use nor keep embeddings.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Compare two generators on the same prompts.

    Which is better, by how much, and may it be chance? Pictures are paired by prompt, and within it by seed, else by
    file name. Two tables that `rerank --csv` wrote do as well.
    """
    options = CompareOptions(
        first=first,
        second=second,
        prompt=prompt,
        model=model,
        score=score,
        aesthetic=aesthetic,
        view=view,  # type: ignore[arg-type]
        recursive=recursive,
        batch_size=batch_size,
        cache=not no_cache,
        noise=noise,
    )
    with progress() as events:
        report = run(options, events)
    if as_json:
        print_json(report.to_json())
    else:
        _show(report)
    for line in error_lines(report.errors):
        typer.echo(f"note: {line}", err=True)


def _show(report: CompareReport) -> None:
    from rich.text import Text

    console = stdout_console()
    found = report.comparison
    console.print(Text(f"A  {visible(report.first)}  ({_count(found.pictures[0])})"))
    console.print(Text(f"B  {visible(report.second)}  ({_count(found.pictures[1])})"))
    if report.line:
        console.print(Text.assemble(("scale   ", "bold"), (visible(report.line), "dim")))
    if report.warning:
        console.print(Text.assemble(("words   ", "bold"), (visible(report.warning), "yellow")))
    console.print(Text(_pairing(report)))
    console.print(_table(report))
    console.print(Text(_legend(report), style="dim"))


def _legend(report: CompareReport) -> str:
    paired = next(iter(report.comparison.columns.values())).paired
    count = paired.wins + paired.ties + paired.losses
    flips = f"every flip of {count} signs, which gives at least {_least_p(count):.2g}"
    how = flips if paired.exact else f"20,000 random flips of {count:,} signs"
    return f"wins: with half of the ties (won/tied/lost) · p: two-sided, by {how}"


def _least_p(count: int) -> float:
    return float(min(1.0, 2.0 ** (1 - count)))


def _count(pictures: int) -> str:
    return f"{pictures:,} picture{'' if pictures == 1 else 's'}"


def _pairing(report: CompareReport) -> str:
    """One line on what is compared with what."""
    found = report.comparison
    words = {"seed": "by seed", "name": "by file name", "prompt": "by prompt alone, all pictures of each side"}
    how = ", ".join(
        f"{words[by]}{f' ({count:,})' if len(found.paired_by) > 1 else ''}" for by, count in found.paired_by.items()
    )
    if found.unit == "pair":
        return f"1 prompt, {found.pictures[0]:,} pairs {how}: a pair counts once, so it speaks for this prompt alone"
    prompts = f"{found.prompts:,} prompt{'' if found.prompts == 1 else 's'}"
    return f"{prompts}, paired {how}: a prompt counts once, by the mean of its pictures"


def _table(report: CompareReport) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("score", "A", "B", "A − B", "95 % interval", "wins", "p"):
        table.add_column(title, justify="left" if title == "score" else "right", overflow="fold")
    for name, each in report.comparison.columns.items():
        paired, difference = each.paired, each.paired.difference
        numbers = (
            f"{each.first:.4f}",
            f"{each.second:.4f}",
            f"{difference.value:+.4f}",
            f"{difference.low:+.4f} to {difference.high:+.4f}",
            f"{paired.win_rate:.0%} ({paired.wins:,}/{paired.ties:,}/{paired.losses:,})",
            f"{paired.p_value:.2g}",
        )
        table.add_row(Text(visible(name)), *map(Text, numbers))
    return table
