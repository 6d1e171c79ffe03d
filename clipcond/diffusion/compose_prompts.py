"""From prompts with AND, and from regions, to a Composition: each part encoded as a prompt of its own, all in the one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from clipcond.condition.cache import Cache
from clipcond.diffusion.compose_denoiser import Composed, Composition
from clipcond.diffusion.encode_plans import EncodedSides, encode_plans
from clipcond.diffusion.findings import PlacedFinding, findings_of_written
from clipcond.diffusion.planner import Planner, PlansByPrompt
from clipcond.diffusion.prompt_plans import EncodeOptions, PromptPlans, Prompts, Sides
from clipcond.diffusion.regions import Areas, Region
from clipcond.diffusion.timeline import Timeline, first_scheduled, needed_steps, variants_of
from clipcond.errors import ConfigError
from clipcond.prompt.plan import PromptPlan


def compose(
    planner: Planner,
    prompts: Sides[Prompts],
    options: EncodeOptions,
    *,
    cache: Cache | None = None,
    force_zeros: bool = False,
    num_images_per_prompt: int = 1,
    steps: int | None = None,
) -> Composition:
    """Encode prompts of several parts; see `Conditioner.compose`."""
    plans, timeline, variants = _over_steps(planner, prompts, options, steps)
    most = max(len(_weights(each)) for sides in variants for each in sides.positive)
    encoded = encode_plans(
        planner.pipeline,
        [each for sides in variants for each in _parts(sides, most)],
        options,
        inversions=planner.inversions,
        cache=cache,
        force_zeros=force_zeros,
        num_images_per_prompt=num_images_per_prompt,
    )
    of_variants = zip(*[iter(encoded)] * most, strict=True)
    return Composition(
        variants=tuple(
            _composed(sides.positive, own, num_images_per_prompt)
            for sides, own in zip(variants, of_variants, strict=True)
        ),
        timeline=timeline,
        plans=tuple(each.by_argument["prompt"] for each in plans.positive),
        negative_plans=tuple(each.by_argument["negative_prompt"] for each in plans.negative),
        findings=findings_of_written(plans, [found for each in encoded for found in each.findings]),
        family=planner.pipeline.family,
        dialect=options.dialect,
    )


def compose_regions(
    planner: Planner,
    prompts: Sides[Prompts],
    regions: Sequence[Region],
    options: EncodeOptions,
    *,
    cache: Cache | None = None,
    force_zeros: bool = False,
    num_images_per_prompt: int = 1,
    steps: int | None = None,
) -> Composition:
    """Encode a base prompt and the prompts of regions; see `Conditioner.regions`.

    prompts: of the base, then of each region; one negative prompt, or none in families without.
    Raises ConfigError for AND in a family without a negative side.
    """
    plans, timeline, variants = _over_steps(planner, prompts, options, steps)
    flat = [_parts_in_a_row(sides, regions) for sides in variants]
    if not prompts.negative and not all(closed for *_, closed in flat):
        raise ConfigError(f"{planner.pipeline.name} has no negative side that AND could be composed against")
    most = max(len(weights) for _, _, weights, _ in flat)
    encoded = encode_plans(
        planner.pipeline,
        [
            Sides((*parts, *parts[-1:] * (most - len(parts))), sides.negative)
            for (parts, *_), sides in zip(flat, variants, strict=True)
        ],
        options,
        inversions=planner.inversions,
        cache=cache,
        force_zeros=force_zeros,
    )
    made = [
        _composed_regions(each.tensors, Areas(regions, owners + owners[-1:] * (most - len(owners))), weights, closed)
        for each, (_, owners, weights, closed) in zip(encoded, flat, strict=True)
    ]
    findings = findings_of_written(plans, [found for each in encoded for found in each.findings])
    return Composition(
        variants=tuple(_repeated(each, num_images_per_prompt) for each in made),
        timeline=timeline,
        plans=tuple(each.by_argument["prompt"] for each in plans.positive[:1]),
        negative_plans=tuple(each.by_argument["negative_prompt"] for each in plans.negative),
        findings=tuple(map(_named_by_region, findings)),
        family=planner.pipeline.family,
        dialect=options.dialect,
        regions=tuple(regions),
    )


def _over_steps(
    planner: Planner, prompts: Sides[Prompts], options: EncodeOptions, steps: int | None
) -> tuple[Sides[PromptPlans], Timeline | None, list[Sides[PromptPlans]]]:
    """The plans of prompts as they are written, and of each variant where they change over the steps."""
    by_prompt: PlansByPrompt = {}
    plans = planner.plans(prompts, options, by_prompt)
    if options.dialect != "a1111" or (changing := first_scheduled(prompts)) is None:
        return plans, None, [plans]
    timeline, changed = variants_of(prompts, needed_steps(steps, changing))
    return plans, timeline, [planner.plans(each, options, by_prompt) for each in changed]


def _parts_in_a_row(
    sides: Sides[PromptPlans], regions: Sequence[Region]
) -> tuple[tuple[PromptPlans, ...], list[int], list[float], bool]:
    """The parts of base and regions, the region of each (−1: base), its weight, and whether no prompt needs the other side."""
    parts: list[PromptPlans] = []
    owners: list[int] = []
    weights: list[float] = []
    closed = True
    for number, plans in enumerate(sides.positive, start=-1):
        own = _weights(plans)
        composes = _composes(plans.by_argument["prompt"])
        parts += [plans.part(at) for at in range(len(own))] if composes else [plans]
        owners += [number] * len(own)
        weights += [each * (1.0 if number < 0 else regions[number].weight) for each in own]
        closed = closed and own == [1.0]
    return tuple(parts), owners, weights, closed


def _composed_regions(tensors: Mapping[str, Tensor], areas: Areas, weights: list[float], closed: bool) -> Composed:
    pooled = tensors.get("pooled_prompt_embeds")
    filled = weights + [0.0] * (areas.parts - len(weights))
    return Composed(
        parts=tensors["prompt_embeds"][None],
        weights=torch.tensor([filled]),
        negative=tensors.get("negative_prompt_embeds"),
        pooled=None if pooled is None else pooled[None],
        negative_pooled=tensors.get("negative_pooled_prompt_embeds"),
        areas=areas,
        closed=closed,
    )


def _repeated(one: Composed, images: int) -> Composed:
    """The parts of one picture for several."""
    if images == 1:
        return one
    names = ("parts", "weights", "negative", "pooled", "negative_pooled")
    tensors = {name: each for name in names if (each := getattr(one, name)) is not None}
    return replace(one, **{name: each.repeat_interleave(images, dim=0) for name, each in tensors.items()})


def _named_by_region(found: PlacedFinding) -> PlacedFinding:
    if found.argument != "prompt" or not found.index:
        return found
    return replace(found, argument=f"region {found.index}", index=0)


def _parts(sides: Sides[PromptPlans], most: int) -> Iterator[Sides[PromptPlans]]:
    """The parts of one variant as prompts of their own; a prompt of fewer than `most` repeats its last part.

    The negative side goes with the first part, which is always there.
    """
    for number in range(most):
        own = tuple(
            plans.part(min(number, len(_weights(plans)) - 1)) if _composes(plans.by_argument["prompt"]) else plans
            for plans in sides.positive
        )
        yield Sides(own, sides.negative if number == 0 else ())


def _composed(positive: Sequence[PromptPlans], parts: Sequence[EncodedSides], images: int) -> Composed:
    """The parts of one variant. parts: the encoded parts, each of all prompts."""
    weights = [_weights(plans) for plans in positive]
    filled = torch.tensor([each + [0.0] * (len(parts) - len(each)) for each in weights])
    first = parts[0].tensors
    pooled = None
    if "pooled_prompt_embeds" in first:
        pooled = torch.stack([each.tensors["pooled_prompt_embeds"] for each in parts], dim=1)
    return Composed(
        parts=torch.stack([each.tensors["prompt_embeds"] for each in parts], dim=1),
        weights=filled.repeat_interleave(images, dim=0),
        negative=first["negative_prompt_embeds"],
        pooled=pooled,
        negative_pooled=first.get("negative_pooled_prompt_embeds"),
    )


def _composes(plan: PromptPlan) -> bool:
    return any(part.how == "noise" for part in plan.parts)


def _weights(plans: PromptPlans) -> list[float]:
    """The weights of a prompt's parts; one without AND is one part of its own weight."""
    plan = plans.by_argument["prompt"]
    return [part.weight for part in plan.parts] if _composes(plan) else [plan.weight]
