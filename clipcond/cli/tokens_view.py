"""How `clipcond tokens` looks in a terminal."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from clipcond.cli.render import excerpt, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from clipcond.prompt.findings import Finding
    from clipcond.prompt.plan import Chunk, EncoderPlan, PromptPlan

_STRIPES = ("black on #a5d8ff", "black on #ffe066")
_STRIPES_16 = ("black on cyan", "black on yellow")  # where pastel shades would all become one


def show(plan: PromptPlan, console: Console) -> None:
    """Print a plan: for each encoder the count and its chunks, then what is lost, then the warnings."""
    from rich.text import Text

    # encoders that split the prompt in the same way are shown once
    for _, same in groupby(plan.encoders.values(), key=lambda encoder: encoder.chunks):
        group = list(same)
        names = ", ".join(encoder.name for encoder in group)
        console.print(Text.assemble((f"{plan.family} · {names}", "bold"), "  ", _counter(group[0])))
        for chunk in group[0].chunks:
            console.print()
            console.print(Text(f"chunk {chunk.index + 1} · {len(chunk.tokens)}/{group[0].limit}", style="dim"))
            console.print(_strip(plan.prompt, chunk, console))
        _show_dropped(group[0], console)
    for finding in plan.warnings:
        _show_finding(plan.prompt, finding, console)


def show_line(number: int, plan: PromptPlan, console: Console) -> None:
    """Print one line about a plan: its place in the list, the count, warnings, and as much of the prompt as fits."""
    from rich.text import Text

    encoder = next(iter(plan.encoders.values()))
    line = Text.assemble((f"{number:>4}  ", "dim"), _counter(encoder))
    line.pad_right(max(0, 26 - line.cell_len))
    if plan.warnings:
        line.append(f"  {', '.join(dict.fromkeys(found.code for found in plan.warnings))}", style="yellow")
    kept = len(plan.prompt) if encoder.dropped is None else encoder.dropped.start
    line.append("  ").append(visible(plan.prompt[:kept])).append(visible(plan.prompt[kept:]), style="red")
    line.rstrip()
    if console.is_terminal:
        line.truncate(console.width, overflow="ellipsis")
    console.print(line, soft_wrap=True)


def _counter(encoder: EncoderPlan) -> Text:
    from rich.text import Text

    chunks = len(encoder.chunks)
    return Text.assemble(
        (f"{encoder.content_tokens}/{encoder.limit}", "bold red" if encoder.truncated else "bold green"),
        f" → {chunks} chunk{'s' if chunks > 1 else ''}",
    )


def _strip(prompt: str, chunk: Chunk, console: Console) -> Text:
    """The user's own text with a background that changes at every token.

    Without colours a `·` stands between tokens that no space separates. Tokens of the same character share a place.
    """
    from rich.text import Text

    if not chunk.tokens:
        return Text("(empty)", style="dim")
    plain = console.no_color or console.color_system is None
    stripes = _STRIPES_16 if console.color_system == "standard" else _STRIPES
    strip, at = Text(), chunk.tokens[0].start
    for index, (start, end) in enumerate(dict.fromkeys((token.start, token.end) for token in chunk.tokens)):
        if start > at:
            strip.append(visible(prompt[at:start]))
        elif plain and index:
            strip.append("·")
        strip.append(visible(prompt[max(start, at) : end]), style=None if plain else stripes[index % 2])
        at = end
    return strip


def _show_dropped(encoder: EncoderPlan, console: Console) -> None:
    from rich.text import Text

    if encoder.dropped is None:
        return
    count = encoder.dropped.content_tokens
    console.print()
    console.print(Text(f"a stock pipeline drops {count} token{'s' if count > 1 else ''}", style="bold red"))
    console.print(Text(visible(encoder.dropped.text), style="red"))


def _show_finding(prompt: str, finding: Finding, console: Console) -> None:
    from rich.text import Text

    line, carets = excerpt(prompt, finding.start, finding.end, console.width)
    console.print()
    console.print(Text.assemble((f"warning {finding.code}", "bold yellow"), f": {finding.message}"))
    console.print(Text(line), no_wrap=True, overflow="crop")
    console.print(Text(carets, style="yellow"), no_wrap=True, overflow="crop")
