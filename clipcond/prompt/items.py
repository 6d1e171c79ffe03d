"""Items of a parsed prompt: frozen values that remember where they came from.

Offsets are half-open, in characters of the user's own string. Items come in the order of their places and do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from clipcond.prompt.findings import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Text with one weight. `text` is what the tokenizer sees: marks gone, escapes resolved.

    `places[i]` is the offset in the user's string of `text[i]`; `places` has one entry more than `text`, the end.
    `group` numbers the innermost weighted group that the words stand in, -1 outside of all: chunking may keep one whole.
    `joins`: these words and a touching neighbour of the same weight that joins too are one text for the tokenizer, as in
    A1111 (`joined`).
    """

    text: str
    weight: float
    start: int
    end: int
    places: tuple[int, ...]
    group: int = -1
    joins: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A chunk border that the user asked for; it carries no weight and no token."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compose:
    """The start of a part of its own, put together with the others by its weight.

    A prompt of several parts has one Compose in front of each; A1111's first has no width (start = end). `how`: A1111's
    AND mixes what the denoiser says (`noise`). compel's `.and()` joins the encoded parts (`concatenate`), its
    `.blend()` adds them up, with weights that are brought to a sum of 1 (`blend`) or are not (`sum`).
    """

    weight: float
    start: int
    end: int
    how: Literal["noise", "concatenate", "blend", "sum"] = "noise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """`<lora:name:0.8>`: taken out of the text.

    weight: of all that it changes; of the text encoder alone where `unet_weight` gives the denoiser one of its own, as
    `<lora:name:0.8:0.5>` and `<lora:name:te=0.8:unet=0.5>` do.   dyn: the rank that `dyn=` cuts it down to.
    """

    kind: str
    name: str
    weight: float
    start: int
    end: int
    unet_weight: float | None = None
    dyn: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """A textual-inversion name: `vectors` tokens wide, never split."""

    name: str
    vectors: int
    weight: float
    start: int
    end: int
    group: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """`[from:to:when]` or `[a|b]`: alternatives over the steps; `parse` keeps the first that is not empty as its items.

    kind: `switch` (before, after at `when`) or `alternate` (one a step). when: an int is a step, a float a share of the
    steps (1 to 2: of the hires pass).
    """

    kind: Literal["switch", "alternate"]
    options: tuple[tuple[Item, ...], ...]
    when: float
    start: int
    end: int

    @property
    def items(self) -> tuple[Item, ...]:
        """Return the first option that is not empty, which a plan without steps shows."""
        return next((option for option in self.options if option), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """compel's `cat.swap(dog)`: the picture is drawn after `original`, then its words are exchanged for `edited`."""

    original: tuple[Item, ...]
    edited: tuple[Item, ...]
    options: tuple[tuple[str, float], ...]
    start: int
    end: int

    @property
    def items(self) -> tuple[Item, ...]:
        """Return the original, which a plan shows."""
        return self.original


Item = Words | Break | Compose | Adapter | Embedding | Schedule | Swap


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A parsed prompt. Iterating gives its items."""

    prompt: str
    dialect: str
    items: tuple[Item, ...]
    warnings: tuple[Finding, ...]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


def swapped(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Return the items with the edited words of every swap in the place of the original ones."""
    return tuple(replace(item, original=item.edited) if isinstance(item, Swap) else item for item in items)


def adapters_in(items: Sequence[Item]) -> Iterator[Adapter]:
    """Yield the adapters among items, in order; of a schedule and a swap those that it shows."""
    for item in items:
        if isinstance(item, Adapter):
            yield item
        elif isinstance(item, (Schedule, Swap)):
            yield from adapters_in(item.items)
