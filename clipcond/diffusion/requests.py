"""What a batch is asked and what it gives: requests, how they are encoded, and their states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from clipcond.condition import parts as joining
from clipcond.condition.encoder_input import Reading
from clipcond.condition.lengths import Lengths
from clipcond.condition.weighting import Method
from clipcond.prompt.plan import Part, PromptPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How prompts are encoded."""

    method: Method
    clip_skip: int
    pooled: str
    lengths: Lengths
    positions: int  # of a T5 row at least, 0 for a family without T5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """One prompt, or one side of it. Encoders that read one text share the plan object.

    plans: of the text that each encoder reads, by the encoder's name.   texts: the plan of each text that was given, by
    the name of its argument: `prompt`, `negative_prompt_2`, …
    """

    plans: Mapping[str, PromptPlan]
    texts: Mapping[str, PromptPlan]

    def part(self, number: int) -> Request:
        """One part of a prompt of several, as a prompt of its own; a text without parts goes into each."""
        own = {id(plan): joining.only(plan, number) if plan.parts else plan for plan in self.plans.values()}
        return Request(
            plans={name: own[id(plan)] for name, plan in self.plans.items()},
            texts={name: own.get(id(plan), plan) for name, plan in self.texts.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoded:
    """One prompt's states before lengths are equal, weighted and joined."""

    beside: tuple[Tensor, ...]  # (T, Dᵢ) of each encoder, T may differ
    behind: Tensor | None  # (T', D)
    pooled: Tensor | None  # (P)
    near_zero: tuple[tuple[PromptPlan, tuple[int, int]], ...] = ()  # where a mean was not restored, and its span


@dataclass(slots=True, kw_only=True, eq=False)
class Read:
    """What one encoder reads of one request."""

    reading: Reading
    parts: tuple[Part, ...]
    plan: PromptPlan
    pieces: list[Reading] = field(init=False)  # of each part

    def __post_init__(self) -> None:
        self.pieces = [self.reading.of_part(number) for number in range(len(self.parts))]

    @property
    def rows(self) -> int:
        """The chunks that the joined parts have."""
        counts = [len(piece.rows) for piece in self.pieces]
        return sum(counts) if self.parts[0].how in ("concatenate", "noise") else max(counts)
