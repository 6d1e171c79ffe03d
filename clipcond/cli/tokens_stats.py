"""The output of `clipcond tokens --stats` in a terminal: a collection of prompts in numbers and bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipcond.prompt.analysis.plan_summary import counted
from clipcond.wording import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from clipcond.prompt.analysis.collection import Bin, Survey

_EIGHTHS = " ▏▎▍▌▋▊▉"
_ROWS = 10  # of each list


def show_survey(survey: Survey, console: Console) -> None:
    """Print a survey: the counts, the histogram with the limit in it, split words, common phrases."""
    from rich.text import Text

    share = Text.assemble(
        f"{counted(survey.prompts, 'prompt')} · ",
        (f"{survey.over:,} over {survey.limit} tokens ({survey.over_share:.1%})", "red" if survey.over else "green"),
        f" · {survey.over_two:,} over {2 * survey.limit}",
    )
    console.print(Text.assemble((f"read as {survey.dialect}", "bold"), "  ", share))
    console.print(
        f"tokens: mean {survey.mean:.1f}, median {survey.median}, 90 % within {survey.p90}, 99 % within {survey.p99}, "
        f"longest {survey.longest}; {survey.lost_tokens:,} lost in stock pipelines"
    )
    console.print(f"{survey.distinct:,} different, {survey.empty:,} empty")
    _show_histogram(survey, console)
    if survey.split_words:
        console.print()
        console.print(Text("most split words  (tokens × times)", style="bold"))
        for word in survey.split_words[:_ROWS]:
            _show_row(f"{word.tokens} × {word.count:,}", word.word, console)
    if survey.phrases:
        console.print()
        console.print(Text("most common phrases  (times)", style="bold"))
        for phrase in survey.phrases[:_ROWS]:
            _show_row(f"{phrase.count:,}", phrase.phrase, console)


def _show_row(number: str, text: str, console: Console) -> None:
    from rich.text import Text

    line = Text(f"{number:>12}  {visible(text)}")
    line.truncate(console.width, overflow="ellipsis")
    console.print(line, soft_wrap=True)


def _show_histogram(survey: Survey, console: Console) -> None:
    from rich.text import Text

    if not survey.histogram:
        return
    console.print()
    console.print(Text("lengths", style="bold"))
    highest = max(bar.prompts for bar in survey.histogram)
    room = max(console.width - 24, 10)
    below = True
    for bar in survey.histogram:
        if below and bar.first > survey.limit:
            below = False
            note = f" a stock pipeline cuts from here on ({survey.over_share:.1%})"
            console.print(Text("┈" * 12 + note, style="red", overflow="crop"), no_wrap=True)
        console.print(_row(bar, highest, room, over=not below), no_wrap=True)


def _row(bar: Bin, highest: int, room: int, *, over: bool) -> Text:
    from rich.text import Text

    name = f"{bar.first}–{bar.last}" if bar.last > bar.first else f"{bar.first}"
    drawn = bar_of(bar.prompts / highest if highest else 0, room)
    return Text.assemble((f"{name:>11} ", "dim"), (drawn, "red" if over else "blue"), f" {bar.prompts:,}")


def bar_of(share: float, room: int) -> str:
    """Draw a bar that fills a share of `room` cells, to an eighth of a cell; a sliver for the smallest share."""
    eighths = round(share * room * 8)
    if share > 0:
        eighths = max(eighths, 1)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")
