"""The edits of compel's `.swap()`, which cross-attention control needs besides the states of both prompts.

The picture is to be drawn with the attention maps of the original prompt and the states of the edited one; that loop is the
caller's. Spans and options are those of compel's `cross_attention_control.Arguments`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from clipcond.diffusion.edits import Edit, Span
from clipcond.prompt.dialects.parse import parse
from clipcond.prompt.items import Adapter, Break, Compose, Embedding, Item, Schedule, Swap, Words
from clipcond.prompt.tokenizer import token_rows

_DEFAULTS = {"s_start": 0.0, "s_end": 0.0, "t_start": 0.2, "t_end": 1.0}


def edits_of_prompt(prompt: str, vectors: Mapping[str, int]) -> tuple[Edit, ...]:
    """Return the swaps of a prompt in compel's dialect. vectors: the number of vectors of each textual inversion."""
    return edits_of(parse(prompt, "compel", embeddings=vectors).items) if ".swap(" in prompt else ()


def edits_of(items: Sequence[Item], rows: Callable[[str], Sequence[object]] = token_rows) -> tuple[Edit, ...]:
    """Return the swaps in the items of a parsed prompt, by part. rows: tokenises a text."""
    numbers = iter(_numbered(items))
    parts = groupby(numbers, key=lambda pair: pair[0])
    found = [(number, [item for _, item in members]) for number, members in parts]
    return tuple(
        Edit(
            part=number,
            spans=tuple(_spans(own, rows)),
            options=tuple(_options(item) for item in own if isinstance(item, Swap)),
        )
        for number, own in found
        if any(isinstance(item, Swap) for item in own)
    )


def _numbered(items: Sequence[Item]) -> Iterator[tuple[int, Item]]:
    """Each item with the number of the part that it stands in."""
    part, first = 0, True
    for item in items:
        if isinstance(item, Compose):
            part, first = part + (not first), False
        else:
            yield part, item


def _spans(items: Sequence[Item], rows: Callable[[str], Sequence[object]]) -> Iterator[Span]:
    yield "equal", 0, 1, 0, 1
    at = there = 1
    for item in items:
        swapped = isinstance(item, Swap)
        here = _count(item.original if isinstance(item, Swap) else [item], rows)
        new = _count(item.edited, rows) if isinstance(item, Swap) else here
        if here or new:
            yield "replace" if swapped else "equal", at, at + here, there, there + new
        at, there = at + here, there + new
    yield "equal", at, at + 1, there, there + 1


def _count(items: Sequence[Item], rows: Callable[[str], Sequence[object]]) -> int:
    """The tokens of items."""
    total = 0
    for item in items:
        match item:
            case Words():
                total += len(rows(item.text))
            case Embedding():
                total += item.vectors
            case Schedule() | Swap():
                total += _count(item.items, rows)
            case Break() | Compose() | Adapter():
                pass
    return total


def _options(swap: Swap) -> dict[str, float]:
    """The options of a swap with compel's defaults; `shape_freedom` f is an `s_end` of 1 - ∛f."""
    options = dict(swap.options)
    freedom = options.pop("shape_freedom", None)
    free = {} if freedom is None else {"s_end": 1.0 - abs(freedom) ** (1 / 3)}
    return {**_DEFAULTS, **free, **options}
