"""The output of `clipcond tokens` in a terminal: counts, chunks with their tokens in colour, findings, phrases."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from math import log2
from typing import TYPE_CHECKING

from clipcond.cli.render import excerpt
from clipcond.prompt.analysis.plan_summary import (
    all_warnings,
    cut_reason,
    dialect_meant,
    encoder_groups,
    stock_reading,
    structure,
    weighted_passages,
    with_flag,
)
from clipcond.wording import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from clipcond.prompt.analysis.phrases import Analysis
    from clipcond.prompt.findings import Finding
    from clipcond.prompt.plan import Chunk, EncoderPlan, PromptPlan

Colour = tuple[int, int, int]

MOST_FINDINGS = 50  # of warnings, and of notes
SIDE_BY_SIDE = 80  # columns of a terminal in which two plans stand beside each other

_OPENING = " \t\n([{\"'"
_COMMAS = frozenset(",，、;")  # tokens of their own that need no block of colour to be seen

# two colours in turn show where tokens end; a weight moves both towards warm (more) or gray (less)
_STRIPES: tuple[Colour, Colour] = ((0xA5, 0xD8, 0xFF), (0xFF, 0xE0, 0x66))
_MORE: tuple[Colour, Colour] = ((0xFF, 0x8A, 0x65), (0xFF, 0x63, 0x47))
_LESS: tuple[Colour, Colour] = ((0xB4, 0xB4, 0xB4), (0x98, 0x98, 0x98))
_AGAINST: tuple[Colour, Colour] = ((0xCC, 0x99, 0xFF), (0xBA, 0x78, 0xFF))
# where pastel shades would all become one
_STRIPES_16 = ("black on cyan", "black on yellow")
_MORE_16 = ("bold black on bright_red", "bold black on magenta")
_LESS_16 = ("black on white", "black on bright_black")


def show(
    plans: Sequence[PromptPlan], console: Console, *, analysis: Analysis | None = None, explain: bool = False
) -> None:
    """Print the plans of one prompt for one or several families: for each encoder the count and its chunks, then what
    is lost, the warnings, the findings of the analysis.

    explain: with a table of the phrases and their places.
    """
    for line in _block(plans, console, console.width, analysis, explain):
        console.print(line)


def show_side_by_side(
    columns: Sequence[Sequence[PromptPlan]], analyses: Sequence[Analysis], console: Console, *, explain: bool = False
) -> None:
    """Print the same prompt under several dialects, one a column: beside each other where the terminal is wide enough."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    first = columns[0][0]
    console.print(Text.assemble(("prompt  ", "bold"), visible(first.prompt)))
    console.print(Text(_difference(first, columns[1][0]), style="bold"))
    beside = console.width >= SIDE_BY_SIDE
    width = (console.width - 3) // 2 if beside else console.width
    blocks = [
        Group(
            Text(f"dialect {plans[0].dialect}", style="bold reverse"),
            *_block(plans, console, width, analysis, explain, compared=True),
        )
        for plans, analysis in zip(columns, analyses, strict=True)
    ]
    if beside:
        grid = Table.grid(padding=(0, 3, 0, 0), pad_edge=False)
        for _ in blocks:
            grid.add_column(width=width, no_wrap=False, overflow="fold")
        grid.add_row(*blocks)
        blocks = [Group(grid)]
    for block in blocks:
        console.print()
        console.print(block)


def show_line(number: int, plan: PromptPlan, console: Console) -> None:
    """Print one line about a plan: its place in the list, the count, warnings, and as much of the prompt as fits."""
    from rich.text import Text

    encoder = next(iter(plan.encoders.values()))
    line = Text.assemble((f"{number:>4}  ", "dim"), counter(encoder))
    line.pad_right(max(0, 26 - line.cell_len))
    if plan.warnings:
        line.append(f"  {', '.join(dict.fromkeys(found.code for found in plan.warnings))}", style="yellow")
    kept = len(plan.prompt) if encoder.dropped is None else encoder.dropped.start
    line.append("  ").append(visible(plan.prompt[:kept])).append(visible(plan.prompt[kept:]), style="red")
    line.rstrip()
    if console.is_terminal:
        line.truncate(console.width, overflow="ellipsis")
    console.print(line, soft_wrap=True)


def counter(encoder: EncoderPlan) -> Text:
    """Write `81/75 → 2 chunks`, red where a stock pipeline would cut; `unknown` where its tokenizer is not at hand."""
    from rich.text import Text

    if encoder.unknown:
        return Text("unknown", style="yellow")
    chunks = len(encoder.chunks)
    return Text.assemble(
        (f"{encoder.content_tokens}/{encoder.limit}", "bold red" if encoder.truncated else "bold green"),
        f" → {chunks} chunk{'s' if chunks > 1 else ''}",
    )


def strip(prompt: str, chunks: Sequence[Chunk], index: int, console: Console) -> Text:
    """Draw the user's own text of one chunk with a background that changes at every token and warms with its weight.

    Without colours a `·` stands between tokens that no space separates. Tokens of the same character share a place.
    What lies between tokens, the marks of a dialect for instance, has no background, and commas have none either.
    """
    from rich.text import Text

    chunk = chunks[index]
    if not chunk.tokens:
        return Text("(empty)", style="dim")
    at = _start(prompt, chunks, index)
    plain = console.no_color or console.color_system is None
    drawn = Text()
    drawn.append(visible(prompt[at : chunk.tokens[0].start].lstrip()), style="dim")
    at = chunk.tokens[0].start
    number = 0
    for start, end, weight in dict.fromkeys((token.start, token.end, token.weight) for token in chunk.tokens):
        text = prompt[max(start, at) : end]
        comma = text in _COMMAS
        if start > at:
            between = visible(prompt[at:start])
            drawn.append(between, style=None if between.isspace() else "dim")
        elif plain and number and not comma:
            drawn.append("·")
        drawn.append(visible(text), style=None if comma else token_style(number, weight, console))
        number += not comma
        at = max(at, end)
    after = _start(prompt, chunks, index + 1) if chunks[index + 1 : index + 2] else len(prompt)
    drawn.append(visible(prompt[at:after].rstrip()), style="dim")
    return drawn


def _start(prompt: str, chunks: Sequence[Chunk], index: int) -> int:
    """Return the offset of a chunk's text: an opening bracket before its first token is its own, other marks are not."""
    before = next((chunk.tokens[-1].end for chunk in reversed(chunks[:index]) if chunk.tokens), 0)
    if before == 0:
        return 0
    first = chunks[index].tokens[0].start if chunks[index].tokens else before
    return before + len(prompt[before:first].rstrip(_OPENING))


def _block(
    plans: Sequence[PromptPlan],
    console: Console,
    width: int,
    analysis: Analysis | None,
    explain: bool,
    *,
    compared: bool = False,
) -> Iterator[Text]:
    """Yield all lines about the plans of one prompt, for a terminal of `width` columns.

    compared: another dialect stands beside it, so that a warning about it need not come first.
    """
    from rich.text import Text

    prompt, warnings = plans[0].prompt, all_warnings(plans)
    foreign = [found for found in warnings if dialect_meant(found) and not compared]
    for finding in foreign:  # first: the rest is about a prompt that was meant to be read otherwise
        yield from islice(_finding(prompt, finding, width, "warning", "yellow"), 1, None)
    for number, (label, encoders) in enumerate(encoder_groups(plans)):
        first = encoders[0]
        if number or foreign:
            yield Text()
        yield Text.assemble((label, "bold"), "  ", counter(first))
        if first.unknown:
            yield Text(first.unknown, style="yellow")
        for index in range(len(first.chunks)):
            yield Text()
            yield Text(_heading(first, index), style="dim")
            yield strip(prompt, first.chunks, index, console)
        yield from _weights(prompt, first)
        if not number:
            yield from _structure(plans[0])
        yield from _stock(first)
    yield from _legend(prompt, plans, console)
    for findings, kind, colour in (
        ([found for found in warnings if found not in foreign], "warning", "yellow"),
        (analysis.findings if analysis else (), "note", "cyan"),
    ):
        yield from _findings(prompt, findings, width, kind, colour)
    if analysis and explain:
        yield from _explanation(analysis, width, unknown=plans[0].encoders[analysis.encoder].unknown is not None)


def _structure(plan: PromptPlan) -> Iterator[Text]:
    """Yield a line each for adapters, changes over the steps, and parts."""
    from rich.text import Text

    for number, (label, text) in enumerate(structure(plan)):
        if not number:
            yield Text()
        yield Text.assemble((label, "bold"), "  ", visible(text))


def _legend(prompt: str, plans: Sequence[PromptPlan], console: Console) -> Iterator[Text]:
    """Yield a line that says how tokens are told apart, where there are tokens to tell apart."""
    from rich.text import Text

    tokens = [
        token for plan in plans for encoder in plan.encoders.values() for c in encoder.chunks for token in c.tokens
    ]
    if console.no_color or console.color_system is None:
        pairs = ((one.end, other) for one, other in pairwise(tokens))
        touching = any(end == after.start and prompt[end : after.end] not in _COMMAS for end, after in pairs)
        text = "a · stands between tokens that no space parts; commas are tokens too" if touching else ""
    else:
        weights = [token.weight for token in tokens]
        looks = {
            "redder: weight above 1": any(weight > 1 for weight in weights),
            "grayer: below 1": any(0 <= weight < 1 for weight in weights),
            "violet: below 0": any(weight < 0 for weight in weights),
        }
        parts = ["each block of colour is a token, each comma too", *(name for name, on in looks.items() if on)]
        text = "; ".join(parts) if len(tokens) > 1 else ""
    if text:
        yield Text()
        yield Text(text, style="dim")


def _heading(encoder: EncoderPlan, index: int) -> str:
    chunk, reason = encoder.chunks[index], cut_reason(encoder.chunks, index)
    text = f"chunk {index + 1} · {len(chunk.tokens)}/{encoder.limit}"
    return f"{text} · cut: {reason}" if reason else text


def _weights(prompt: str, encoder: EncoderPlan) -> Iterator[Text]:
    from rich.text import Text

    passages = weighted_passages(prompt, encoder)
    if passages:
        yield Text()
        line = Text("weights", style="bold")
        for number, (text, weight) in enumerate(passages):
            line.append(" · " if number else "  ", style="dim").append(visible(text) + " ", style="not bold")
            line.append(f"×{weight:.4g}", style="red" if weight > 1 else "blue")
        yield line


def _stock(encoder: EncoderPlan) -> Iterator[Text]:
    """Yield the reading of a stock pipeline where it differs, and the text that it drops."""
    from rich.text import Text

    if text := stock_reading(encoder):
        yield Text()
        yield Text(text, style="bold red" if encoder.dropped else "bold")
    if encoder.dropped is not None:
        yield Text(visible(encoder.dropped.text), style="red")


def _findings(prompt: str, found: Sequence[Finding], width: int, kind: str, colour: str) -> Iterator[Text]:
    from rich.text import Text

    for finding in found[:MOST_FINDINGS]:
        yield from _finding(prompt, finding, width, kind, colour)
    if len(found) > MOST_FINDINGS:
        yield Text()
        yield Text(f"and {len(found) - MOST_FINDINGS} more {kind}s", style=colour)


def _finding(prompt: str, finding: Finding, width: int, kind: str, colour: str) -> Iterator[Text]:
    from rich.text import Text

    line, carets = excerpt(prompt, finding.start, finding.end, width, sys.stdout.encoding)
    yield Text()
    yield Text.assemble((f"{kind} {finding.code}", f"bold {colour}"), f": {visible(with_flag(finding))}")
    yield Text(line, no_wrap=True, overflow="crop")
    yield Text(carets, style=colour, no_wrap=True, overflow="crop")


def _explanation(analysis: Analysis, width: int, *, unknown: bool) -> Iterator[Text]:
    """Yield the phrases with their places: those of the first chunk weigh most. unknown: no tokenizer is at hand."""
    from rich.text import Text

    yield Text()
    if unknown:
        yield Text.assemble(("phrases", "bold"), "  ", ("unknown", "yellow"))
        return
    share = f"{analysis.boilerplate_tokens} of {analysis.content_tokens} tokens are boilerplate"
    yield Text.assemble(("phrases", "bold"), f"  {share} ({analysis.boilerplate_share:.0%}, marked ~)")
    yield Text("  token  tokens  chunk", style="dim")
    for phrase in analysis.phrases:
        first, last = phrase.chunks
        chunks = f"{first + 1}" if first == last else f"{first + 1}–{last + 1}"
        weight = "" if phrase.weight == 1 else f" ×{phrase.weight:.4g}"
        marks = ("~ " if phrase.boilerplate else "") + ("(again) " if phrase.repeats else "")
        line = Text(f"{phrase.first + 1:>7}  {phrase.tokens:>6}  {chunks:>5}  {marks}{visible(phrase.text)}{weight}")
        line.truncate(width, overflow="ellipsis")
        line.stylize("dim" if first else "")
        yield line


def _difference(left: PromptPlan, right: PromptPlan) -> str:
    """Compare the tokens and weights of a prompt under two dialects, in one line."""
    ours, theirs = _tokens(left), _tokens(right)
    names = f"{left.dialect} and {right.dialect}"
    if left.encoders[left.counted].unknown:
        return f"{names}: unknown, without a tokenizer"
    if ours == theirs:
        return f"{names}: the same tokens and weights"
    if [token[0] for token in ours] == [token[0] for token in theirs]:
        return f"{names}: the same tokens, other weights"
    return f"{left.dialect}: {len(ours)} tokens, {right.dialect}: {len(theirs)} tokens"


def _tokens(plan: PromptPlan) -> list[tuple[int, float]]:
    encoder = plan.encoders[plan.counted]
    return [(token.id, token.weight) for chunk in encoder.chunks for token in chunk.tokens]


def token_style(number: int, weight: float, console: Console) -> str | None:
    """Return the style of a chunk's token: black on one of two stripes, moved by its weight; None where there are no colours."""
    if console.no_color or console.color_system is None:
        return None
    stripe = number % 2
    if console.color_system == "standard":
        return (_STRIPES_16 if weight == 1 else _MORE_16 if weight > 1 else _LESS_16)[stripe]
    return "black on #{:02x}{:02x}{:02x}".format(*shade(stripe, weight))


def shade(stripe: int, weight: float) -> Colour:
    """Return the background of a token: pastel at weight 1, full red from 2 on, gray down to 0, violet below."""
    if weight == 1:
        return _STRIPES[stripe]
    if weight < 0:
        return _AGAINST[stripe]
    strength = 0.25 + 0.75 * min(log2(weight) if weight > 1 else 1 - weight, 1.0)  # the slightest weight is seen
    towards = (_MORE if weight > 1 else _LESS)[stripe]
    red, green, blue = (round(a + (b - a) * strength) for a, b in zip(_STRIPES[stripe], towards, strict=True))
    return red, green, blue
