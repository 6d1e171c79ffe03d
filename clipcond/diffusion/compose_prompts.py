"""From prompts with AND to a Composition: each part encoded as a prompt of its own, all in the one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from clipcond.condition.cache import Cache
from clipcond.diffusion.compose_denoiser import Composed, Composition
from clipcond.diffusion.encode_plans import EncodedSides, encode_plans
from clipcond.diffusion.findings import findings_of_written
from clipcond.diffusion.planner import Planner, PlansByPrompt
from clipcond.diffusion.prompt_plans import EncodeOptions, PromptPlans, Prompts, Sides
from clipcond.diffusion.timeline import first_scheduled, needed_steps, variants_of
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
    by_prompt: PlansByPrompt = {}
    plans = planner.plans(prompts, options, by_prompt)
    timeline, variants = None, [plans]
    if options.dialect == "a1111" and (changing := first_scheduled(prompts)) is not None:
        timeline, changed = variants_of(prompts, needed_steps(steps, changing))
        variants = [planner.plans(each, options, by_prompt) for each in changed]
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
