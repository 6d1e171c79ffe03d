"""From prompts with AND to a Composition: each part encoded as a prompt of its own, all in the one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clipcond.diffusion.compose_denoiser import Composed, Composition, given
from clipcond.diffusion.conditioning import Conditioning
from clipcond.diffusion.encode_requests import as_written
from clipcond.diffusion.prompts import Prompts, negatives_of, prompts_of
from clipcond.diffusion.requests import Options, Request
from clipcond.diffusion.timeline import Timeline, needed, scheduled, spread
from clipcond.errors import ConfigError
from clipcond.prompt.plan import PromptPlan

if TYPE_CHECKING:
    from clipcond.diffusion.conditioner import Conditioner


@torch.no_grad()
def compose(
    conditioner: Conditioner,
    prompt: Prompts,
    negative_prompt: Prompts | None = None,
    *,
    dialect: str = "a1111",
    chunking: str | None = None,
    num_images_per_prompt: int = 1,
    steps: int | None = None,
    **settings: Any,
) -> Composition:
    """What `Conditioner.compose` says."""
    if num_images_per_prompt < 1:
        raise ConfigError(f"num_images_per_prompt is {num_images_per_prompt}, expected 1 or more")
    if conditioner.family == "flux":
        raise ConfigError(f"{conditioner.loading.name} has no negative side that AND could be composed against")
    options = conditioner.options(dialect=dialect, **settings)
    texts = prompts_of(prompt, {})
    negatives = negatives_of(negative_prompt, {}, len(texts))
    known: dict[str, PromptPlan] = {}

    def requests(side: Sequence[Any], argument: str) -> list[Request]:
        return [conditioner.request(each, options, dialect, chunking, known, argument) for each in side]

    written = requests(texts, "prompt"), requests(negatives, "negative_prompt")
    _refuse_parts(written[1])
    times: Timeline | None = None
    if dialect == "a1111" and (changing := scheduled([*texts, *negatives])) is not None:
        times, texts, negatives = spread(texts, negatives, needed(steps, changing))
    out, weights = _encode(
        conditioner,
        requests(texts, "prompt"),
        requests(negatives, "negative_prompt"),
        options,
        dialect=dialect,
        zeros=negative_prompt is None and conditioner.loading.zeros,
        images=num_images_per_prompt,
    )
    variants = 1 if times is None else len(times.variants)
    return Composition(
        variants=split_parts(out, weights.view(variants, len(written[0]), -1), num_images_per_prompt),
        times=times,
        plans=tuple(each.texts["prompt"] for each in written[0]),
        negative_plans=tuple(each.texts["negative_prompt"] for each in written[1]),
        findings=tuple(as_written(written, out.findings, lambda index: index // weights.shape[1] % len(written[0]))),
        family=conditioner.family,
        dialect=dialect,
    )


def composition_of(pipe: Any, prompt: Prompts, negative_prompt: Prompts | None = None, **options: Any) -> Composition:
    """`Conditioner.from_pipeline(pipe).compose(prompt, negative_prompt, **options)` as one function, for pipeline files."""
    from clipcond.diffusion.conditioner import Conditioner

    return Conditioner.from_pipeline(pipe).compose(prompt, negative_prompt, **options)


def split_parts(out: Conditioning, weights: Tensor, images: int) -> tuple[Composed, ...]:
    """The parts of each variant, from a conditioning of them all as prompts of their own.

    out: of V·B·M prompts with their negatives, each `images` times in a row.   weights: (V, B, M).
    """
    variants, prompts, parts = weights.shape

    def fold(tensor: Tensor) -> Tensor:  # (V·B·M·n, …) → (V, B·n, M, …)
        rest = tensor.shape[1:]
        return tensor.view(variants, prompts, parts, images, *rest).transpose(2, 3).flatten(1, 2)

    states, negative = fold(out.prompt_embeds), fold(given(out.negative_prompt_embeds))[:, :, 0]
    pooled = None if out.pooled_prompt_embeds is None else fold(out.pooled_prompt_embeds)
    nothing = None if out.negative_pooled_prompt_embeds is None else fold(out.negative_pooled_prompt_embeds)[:, :, 0]
    return tuple(
        Composed(
            parts=states[number],
            weights=weights[number].repeat_interleave(images, dim=0),
            negative=negative[number],
            pooled=None if pooled is None else pooled[number],
            negative_pooled=None if nothing is None else nothing[number],
        )
        for number in range(variants)
    )


def _encode(
    conditioner: Conditioner,
    positive: Sequence[Request],
    negative: Sequence[Request],
    options: Options,
    *,
    dialect: str,
    zeros: bool,
    images: int,
) -> tuple[Conditioning, Tensor]:
    """Every part as a prompt of its own, as many for each prompt, and their weights (V·B, M)."""
    told = [_weights(each.texts["prompt"]) for each in positive]
    most = max(len(each) for each in told)
    filled = [each + [0.0] * (most - len(each)) for each in told]
    parts = [
        request if not _composes(request.texts["prompt"]) else request.part(min(number, len(weights) - 1))
        for request, weights in zip(positive, told, strict=True)
        for number in range(most)
    ]
    out = conditioner.condition(
        parts,
        [each for each in negative for _ in range(most)],
        options,
        dialect=dialect,
        zeros=zeros,
        images=images,
    )
    return out, torch.tensor(filled)


def _composes(plan: PromptPlan) -> bool:
    return any(part.how == "noise" for part in plan.parts)


def _weights(plan: PromptPlan) -> list[float]:
    """Of a prompt's parts; one without AND is one part of weight 1."""
    return [part.weight for part in plan.parts] if _composes(plan) else [plan.weight]


def _refuse_parts(negatives: Sequence[Request]) -> None:
    for each in negatives:
        if _composes(each.texts["negative_prompt"]):
            raise ConfigError('the negative prompt has AND in it, and only prompts are composed; write "and"')
