"""The table of `clipcond rerank`: what is kept, by rank, with what its numbers are; errors below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipcond.cli.render import stdout_console
from clipcond.wording import visible

if TYPE_CHECKING:
    from rich.text import Text

    from clipcond.rerank.assignment import Assignment
    from clipcond.rerank.rows import RankedImage, Ranking

_BAR = 10  # cells
_WIDE_ENOUGH = 56  # cells of a terminal that leave room for a file name beside the bar
_NARROW = 8  # cells of a column of numbers, with its border
_FOR_NAMES = 24
_TITLES = {"clipscore": "CLIPScore"}
_ALL_OF_IT = 0.995  # of a picture: rounding cuts a pixel
_NAMED = 3  # pictures of a kind of error that a line names


def show(ranking: Ranking) -> None:
    """Print what the numbers are, a table of the kept pictures by rank, then errors in red."""
    from rich.text import Text

    console = stdout_console()
    prompts = {row.prompt for row in ranking.scored}
    if len(prompts) == 1 and ranking.scored[0].prompt is not None:
        console.print(_heading(ranking.scored[0]))
    if ranking.header is not None and ranking.scored:
        console.print(Text.assemble(("scale   ", "bold"), (visible(ranking.header.line()), "dim")))
    if ranking.warning:
        console.print(Text.assemble(("words   ", "bold"), (visible(ranking.warning), "yellow")))
    if ranking.kept:
        _print_table(ranking, several=len(prompts) > 1)
    for line in error_lines(ranking.errors):
        console.print(Text.assemble(("error ", "bold red"), (line, "red")))


def show_assignment(assignment: Assignment) -> None:
    """Print the best picture of each prompt, then the best prompt of each picture."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("prompt", "its best picture", "score", "one for one"):
        table.add_column(title, overflow="fold", justify="right" if title == "score" else "left")
    alone = {each.prompt: each.path for each in assignment.one_to_one}
    for each in assignment.pictures:
        own = visible(str(alone[each.prompt])) if each.prompt in alone else "-"
        table.add_row(*map(Text, (brief(each.prompt), visible(str(each.path)), f"{each.score:.4f}", own)))
    below = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("picture", "its best prompt", "z"):
        below.add_column(title, overflow="fold", justify="right" if title == "z" else "left")
    for each in assignment.prompts:
        below.add_row(*map(Text, (visible(str(each.path)), brief(each.prompt), f"{each.z:.2f}")))
    console = stdout_console()
    console.print(table)
    console.print()
    console.print(below)


def error_lines(errors: Sequence[RankedImage]) -> list[str]:
    """A line for each picture that cannot be read, and one for all that lack a prompt or a number."""
    lines = [f"{visible(str(row.path))}: {visible(row.error or '')}" for row in errors if row.stage == "read"]
    for stage, text in (("prompt", "no prompt of their own"), ("scores", "no numbers in the table of scores")):
        rows = [row for row in errors if row.stage == stage]
        if len(rows) == 1:
            lines.append(f"{visible(str(rows[0].path))}: {visible(rows[0].error or '')}")
        elif rows:
            names = ", ".join(visible(row.path.name) for row in rows[:_NAMED])
            more = f" and {len(rows) - _NAMED:,} more" if len(rows) > _NAMED else ""
            out = "; pass --prompt" if stage == "prompt" else ""
            lines.append(f"{len(rows):,} pictures have {text} ({names}{more}){out}")
    return lines


def _print_table(ranking: Ranking, *, several: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    console = stdout_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rank", justify="right", no_wrap=True)
    bars = console.width >= _WIDE_ENOUGH
    if bars:
        table.add_column("", no_wrap=True, min_width=_BAR)
    columns = _columns(ranking, console.width - (_BAR if bars else 0) - _FOR_NAMES)
    for name in columns:
        table.add_column(_TITLES.get(name, visible(name)), justify="right", no_wrap=True)
    cut = bars and any((row.share_seen or 1) < _ALL_OF_IT for row in ranking.kept)
    if cut:
        table.add_column("seen", justify="right", no_wrap=True)
    table.add_column("file", overflow="fold")
    scores = [row.score or 0.0 for row in ranking.scored]
    for row in ranking.kept:
        numbers = [Text(f"{row.score if name == 'score' else row.scores[name]:.4f}") for name in columns]
        bar = [_bar(row.score or 0.0, scores)] if bars else []
        seen = [Text(f"{row.share_seen:.0%}")] if cut and row.share_seen is not None else []
        table.add_row(Text(f"{row.rank}{'=' if row.tied else ''}"), *bar, *numbers, *seen, _name(row, several))
    console.print(table)
    if any(row.tied for row in ranking.kept) and ranking.header is not None:
        console.print(
            Text(f"=  too near to tell apart: within {ranking.header.noise:.2g} of another score", style="dim")
        )
    if cut:
        console.print(
            Text("seen: the share of the picture that the model sees; --view pad or tiles show all", style="dim")
        )


def _columns(ranking: Ranking, width: int) -> list[str]:
    """The columns that fit: the score that orders first, where it is none of the others."""
    from clipcond.rerank.settings import COLUMNS

    known = [name for name, _ in ranking.header.scales] if ranking.header else []
    order = ranking.header.score if ranking.header else ""
    first = [order] if order in known else ["score"]
    names = [*first, *(name for name in known if name not in first)]
    if not set(first) & {"cosine"} and "score" not in first:
        names = [*first, *(name for name in (*COLUMNS, *known) if name in known and name not in first)]
    return list(dict.fromkeys(names))[: max(2, width // _NARROW)]


def _name(row: RankedImage, several: bool) -> Text:
    """The file, and below it what belongs to it alone: its prompt, what it lacks, its group."""
    from rich.text import Text

    name = Text(visible(str(row.path)))
    if several:
        source = "" if row.prompt_source in (None, "given") else f"  [{visible(row.prompt_source or '')}]"
        name.append(f"\n{brief(row.prompt or '')}{source}", style="dim")
    if row.missing:
        name.append(f"\nmissing: {brief('; '.join(row.missing))}", style="yellow")
    if row.group is not None:
        name.append(f"\nbest of its near-duplicates, group {row.group}", style="dim")
    return name


def _heading(row: RankedImage) -> Text:
    from rich.text import Text

    heading = Text.assemble(("prompt  ", "bold"), brief(row.prompt or "", 200))
    if row.content_tokens is not None:  # a sum of several has none
        chunks = f" in {row.chunks} chunks" if (row.chunks or 1) > 1 else ""
        heading.append(f"  ({row.content_tokens} token{'' if row.content_tokens == 1 else 's'}{chunks})", style="dim")
    return heading


def _bar(score: float, scores: Sequence[float]) -> Text:
    """Draw a score between the least and the best of the run."""
    from rich.text import Text

    least, most = min(scores), max(scores)
    share = (score - least) / (most - least) if most > least else 1.0
    full = max(1, round(share * _BAR))
    return Text.assemble(("█" * full, "green"), ("░" * (_BAR - full), "dim"))


def brief(text: str, most: int = 60) -> str:
    """Text in one line of at most so many characters."""
    text = visible(" ".join(text.split()))
    return text if len(text) <= most else text[: most - 1] + "…"
