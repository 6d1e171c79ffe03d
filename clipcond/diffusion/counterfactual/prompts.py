"""From prompts to a Steering: every text with each of its weighted phrases masked, or its replacement, all in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby

import torch
from torch import Tensor

from clipcond.condition.cache import Cache
from clipcond.diffusion.counterfactual.steering import Parts, SteeredPart, SteeredPhrase, SteeredTexts, Steering
from clipcond.diffusion.encode_plans import encode_plans
from clipcond.diffusion.findings import findings_of_written
from clipcond.diffusion.planner import Planner, PlansByPrompt
from clipcond.diffusion.prompt_plans import EncodeOptions, PromptPlans, Prompts, Sides
from clipcond.diffusion.timeline import first_scheduled, needed_steps, variants_of
from clipcond.errors import ConfigError
from clipcond.prompt.plan import PromptPlan

FLUX = "flux"
REPLACED = 0.0  # the weight at which the other text is drawn in place of the whole one


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterfactualRequest:
    """Prompts to steer. replaced: the positive ones again, as they read after the replacement; None for weights.

    empty_negative: zeros stand for the negative side.   steps: of the sampler, None for prompts that do not change.
    """

    prompts: Sides[Prompts]
    replaced: tuple[Prompts, ...] | None = None
    empty_negative: bool = False
    steps: int | None = None
    every: int = 1


def encode_counterfactual(
    planner: Planner, request: CounterfactualRequest, options: EncodeOptions, *, cache: Cache | None = None
) -> Steering:
    """Encode prompts with all that their steering needs; see `Conditioner.counterfactual`."""
    if request.every < 1:
        raise ConfigError(f"every is {request.every}, expected 1 or more")
    by_prompt: PlansByPrompt = {}
    plans = planner.plans(request.prompts, options, by_prompt)
    timeline, variants = None, [Sides((*request.prompts.positive, *(request.replaced or ())), request.prompts.negative)]
    if options.dialect == "a1111" and (changing := first_scheduled(variants[0])) is not None:
        timeline, variants = variants_of(variants[0], needed_steps(request.steps, changing))
    if request.replaced is None:
        _refuse_other_weights(plans)
    if planner.pipeline.family == FLUX and any(
        part.how == "noise" for each in by_prompt.values() for part in each.parts
    ):
        raise ConfigError(f"{planner.pipeline.name} has no negative side that AND could be composed against")
    texts = _Texts()
    count = len(request.prompts.positive)
    made = [
        _prompts(texts, planner.plans(each, options, by_prompt), count, replacing=request.replaced is not None)
        for each in variants
    ]
    (encoded,) = encode_plans(
        planner.pipeline, [Sides(tuple(texts.plans), ())], options, inversions=planner.inversions, cache=cache
    )
    states, pooled = encoded.tensors["prompt_embeds"], encoded.tensors.get("pooled_prompt_embeds")
    if request.empty_negative:
        made = [_with_zeros(each, len(states)) for each in made]
        states, pooled = _zero_row(states), None if pooled is None else _zero_row(pooled)
    return Steering(
        variants=tuple(SteeredTexts(states=states, pooled=pooled, prompts=each) for each in made),
        timeline=timeline,
        every=request.every,
        plans=tuple(each.by_argument["prompt"] for each in plans.positive),
        negative_plans=tuple(each.by_argument["negative_prompt"] for each in plans.negative),
        findings=findings_of_written(plans, encoded.findings),
        family=planner.pipeline.family,
        dialect=options.dialect,
    )


@dataclass(slots=True)
class _Texts:
    """The texts to encode, each once."""

    plans: list[PromptPlans] = field(default_factory=list)
    _numbers: dict[tuple[object, ...], int] = field(default_factory=dict)

    def number(self, plans: PromptPlans, key: tuple[object, ...]) -> int:
        """The number of a text. key: equal for equal texts."""
        if key not in self._numbers:
            self._numbers[key] = len(self.plans)
            self.plans.append(plans)
        return self._numbers[key]


def _prompts(texts: _Texts, plans: Sides[PromptPlans], count: int, *, replacing: bool) -> Sides[Parts]:
    """The parts of each prompt. count: of the prompts; those behind them in `plans` are their replacements."""
    if replacing:
        pairs = zip(plans.positive[:count], plans.positive[count:], strict=True)
        positive = tuple(tuple(_replaced(texts, before, after)) for before, after in pairs)
        return Sides(positive, tuple((_whole(texts, each, 0, 1.0),) for each in plans.negative))
    return Sides(
        tuple(tuple(_weighted(texts, each)) for each in plans.positive),
        tuple(tuple(_weighted(texts, each)) for each in plans.negative),
    )


def _weighted(texts: _Texts, plans: PromptPlans) -> Iterator[SteeredPart]:
    for number, (part, weight) in enumerate(_parts_of(plans)):
        plan = next(iter(part.by_argument.values()))
        whole = _whole(texts, part, number, weight)
        phrases = []
        for start, end, own in weighted_phrases(plan):
            masked = replace(part, hidden=((start, end),))
            phrases.append(SteeredPhrase(own, texts.number(masked, (*_key(part, number), start, end))))
        yield replace(whole, phrases=tuple(phrases))


def _replaced(texts: _Texts, before: PromptPlans, after: PromptPlans) -> Iterator[SteeredPart]:
    old, new = list(_parts_of(before)), list(_parts_of(after))
    if len(old) != len(new):
        raise ConfigError(
            f"the prompt has {len(old)} parts and after the replacement {len(new)}; replace within the parts of AND"
        )
    for number, ((part, weight), (other, _)) in enumerate(zip(old, new, strict=True)):
        whole = _whole(texts, part, number, weight)
        if _ids(part) != _ids(other):
            whole = replace(whole, phrases=(SteeredPhrase(REPLACED, texts.number(other, _key(other, number))),))
        yield whole


def weighted_phrases(plan: PromptPlan) -> list[tuple[int, int, float]]:
    """(start, end, weight) of each phrase of a plan of another weight than 1.

    A phrase is a run of tokens of one weight, over the borders of chunks too, within one part of the prompt.
    """
    chunks = next(iter(plan.encoders.values())).chunks
    tokens = [(token.weight, chunk.part, token) for chunk in chunks for token in chunk.tokens]
    found = []
    for (weight, _), run in groupby(tokens, key=lambda each: each[:2]):
        if weight != 1:
            own = [token for _, _, token in run]
            found.append((own[0].start, own[-1].end, weight))
    return found


def _parts_of(plans: PromptPlans) -> Iterator[tuple[PromptPlans, float]]:
    """The parts of an AND as prompts of their own, each with its weight; a prompt without is one of its own weight."""
    plan = next(iter(plans.by_argument.values()))
    if any(part.how == "noise" for part in plan.parts):
        yield from ((plans.part(number), part.weight) for number, part in enumerate(plan.parts))
    else:
        yield plans, plan.weight if plan.family != FLUX else 1.0  # which has no side to weigh it against


def _whole(texts: _Texts, part: PromptPlans, number: int, weight: float) -> SteeredPart:
    return SteeredPart(weight, texts.number(part, _key(part, number)))


def _key(part: PromptPlans, number: int) -> tuple[object, ...]:
    """Equal for texts that are read alike. number: of the part in its prompt."""
    argument = next(iter(part.by_argument))
    return (argument, number, *((name, plan.prompt) for name, plan in part.by_encoder.items()))


def _ids(part: PromptPlans) -> list[list[list[int]]]:
    """The ids of a text, by encoder and chunk."""
    return [plan.encoders[name].ids() for name, plan in part.by_encoder.items()]


def _refuse_other_weights(plans: Sides[PromptPlans]) -> None:
    """Raise ConfigError for weights in the prompts of further encoders, whose phrases nothing masks."""
    for each in (*plans.positive, *plans.negative):
        for argument, plan in list(each.by_argument.items())[1:]:
            if weighted_phrases(plan):
                raise ConfigError(f"counterfactual weights act in the first prompt; take those of {argument} out")


def _with_zeros(prompts: Sides[Parts], number: int) -> Sides[Parts]:
    return Sides(prompts.positive, tuple((SteeredPart(1.0, number),) for _ in prompts.negative))


def _zero_row(rows: Tensor) -> Tensor:
    return torch.cat([rows, torch.zeros_like(rows[:1])])
