"""A steering: the texts of prompts whose phrases weigh more, less or other than written, for `steered` and a stock pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from clipcond.diffusion.findings import PlacedFinding
from clipcond.diffusion.prompt_plans import Sides
from clipcond.diffusion.timeline import Timeline
from clipcond.prompt.plan import PromptPlan


@dataclass(frozen=True, slots=True)
class SteeredPhrase:
    """A phrase and its weight.

    other: the number of the text that stands against the whole one: the phrase masked, or with something else in its place.
    """

    weight: float
    other: int


@dataclass(frozen=True, slots=True)
class SteeredPart:
    """One text of a prompt, a part of an AND or all of it. weight: of the part.   whole: the number of its text."""

    weight: float
    whole: int
    phrases: tuple[SteeredPhrase, ...] = ()


Parts = tuple[SteeredPart, ...]  # of one prompt on one side


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SteeredTexts:
    """All texts of B prompts, R in number, and of each prompt its parts on either side."""

    states: Tensor  # (R, T, D)
    pooled: Tensor | None  # (R, P)
    prompts: Sides[Parts]

    def rows(self, side: tuple[Parts, ...]) -> list[int]:
        """The numbers of the texts that a stock pipeline reads on a side: of each prompt the first part."""
        return [parts[0].whole for parts in side]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steering:
    """Prompts ready for `steered` and a stock pipeline.

    variants: one, or where a prompt changes over the steps all that `timeline` names, of one shape.
    every: the phrases' own predictions are made at every so many steps.
    """

    variants: tuple[SteeredTexts, ...]
    timeline: Timeline | None = None
    every: int = 1
    plans: tuple[PromptPlan, ...]  # of each prompt
    negative_plans: tuple[PromptPlan, ...]
    findings: tuple[PlacedFinding, ...] = ()
    family: str
    dialect: str

    @property
    def kwargs(self) -> dict[str, Tensor]:
        """The tensors for the pipeline's call while `steered` is open."""
        first = self.variants[0]
        named = {}
        for prefix, side in (("", first.prompts.positive), ("negative_", first.prompts.negative)):
            if side:
                named[f"{prefix}prompt_embeds"] = first.states[first.rows(side)]
                if first.pooled is not None:
                    named[f"{prefix}pooled_prompt_embeds"] = first.pooled[first.rows(side)]
        return named

    @property
    def phrases(self) -> int:
        """The number of phrases that are steered, over all prompts and steps."""
        return sum(len(part.phrases) for part in self._parts())

    def unsteered(self) -> Steering:
        """The same prompts with every phrase as it was written."""
        return replace(self, variants=tuple(map(_unsteered, self.variants)))

    def _parts(self) -> Iterator[SteeredPart]:
        for texts in self.variants:
            for parts in (*texts.prompts.positive, *texts.prompts.negative):
                yield from parts


def _unsteered(texts: SteeredTexts) -> SteeredTexts:
    def bare(side: tuple[Parts, ...]) -> tuple[Parts, ...]:
        return tuple(tuple(replace(part, phrases=()) for part in parts) for parts in side)

    return replace(texts, prompts=Sides(bare(texts.prompts.positive), bare(texts.prompts.negative)))
