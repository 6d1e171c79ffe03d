"""The values between the prompts of a call and its tensors: prompts, plans, both sides of guidance, and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from clipcond.condition.lengths import Lengths
from clipcond.condition.parts import only
from clipcond.condition.weighting import Method
from clipcond.prompt.plan import PromptPlan

T = TypeVar("T")
Prompts = Mapping[str, str]  # of one picture, by the suffix of the argument: "" for prompt, "_2" for prompt_2, "_3"


@dataclass(frozen=True, slots=True)
class Sides(Generic[T]):
    """The two sides of guidance. negative: one for each of the positive, or none for a pipeline that does without."""

    positive: tuple[T, ...]
    negative: tuple[T, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """The checked settings of a call."""

    dialect: str
    chunking: str | None  # None: the dialect's own
    method: Method
    clip_skip: int
    pooled: str
    lengths: Lengths
    max_sequence_length: int  # of a T5 row at least, 0 for a family without T5
    pictures: tuple[Any, ...] = ()  # that a language model reads, one for each prompt
    picture_positions: int = 0  # of them that are taken from the prompt's


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PromptPlans:
    """The plans of one picture's prompts, on one side of guidance. Encoders that read one prompt share the plan object.

    by_encoder: of the prompt that each encoder reads.   by_argument: of each prompt of the call: `prompt`,
    `negative_prompt_2`, ….   index: the number of the picture's prompt in the call.   hidden: passages of its first
    prompt that are encoded with nothing attending to them.
    """

    by_encoder: Mapping[str, PromptPlan]
    by_argument: Mapping[str, PromptPlan]
    index: int
    hidden: tuple[tuple[int, int], ...] = ()

    def hidden_from(self, encoder: str) -> tuple[tuple[int, int], ...]:
        """The passages that an encoder is to hide: none where it reads another prompt than the first."""
        return self.hidden if self.by_encoder[encoder] is next(iter(self.by_argument.values())) else ()

    def part(self, number: int) -> PromptPlans:
        """One part of a prompt of several, as a prompt of its own; a prompt without parts goes into each."""
        own = {id(plan): only(plan, number) if plan.parts else plan for plan in self.by_encoder.values()}
        return replace(
            self,
            by_encoder={name: own[id(plan)] for name, plan in self.by_encoder.items()},
            by_argument={name: own.get(id(plan), plan) for name, plan in self.by_argument.items()},
        )
