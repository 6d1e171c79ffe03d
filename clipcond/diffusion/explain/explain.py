"""From a pipeline and a prompt to its explanation.

Each phrase's counterfactual is the prompt's own tokens with the phrase masked, and its effect the difference that this
makes in the denoiser's prediction. Nothing but the texts' tensors is exchanged: no hook on any attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from clipcond.diffusion.compose_denoiser import Composition
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.conditioning import Conditioning
from clipcond.diffusion.explain.carriers import carriers, exchanges
from clipcond.diffusion.explain.denoiser_calls import DenoiserCall, calls_of_picture, recorded, steps_at
from clipcond.diffusion.explain.effects import effect_maps, share
from clipcond.diffusion.explain.explanation import ExplainedPhrase, ExplainedPicture, Explanation
from clipcond.diffusion.explain.predict import MOST_ROWS, predictions
from clipcond.diffusion.explain.settings import ExplainSettings
from clipcond.diffusion.explain.texts import ExplainedTexts, explained_texts
from clipcond.diffusion.explain.verdicts import verdicts
from clipcond.diffusion.findings import PlacedFinding
from clipcond.diffusion.generate import generate
from clipcond.diffusion.pipelines import advice
from clipcond.errors import ConfigError, ModelError
from clipcond.prompt.plan import plan

Progress = Callable[[int], object]


@torch.no_grad()
def explain_prompt(
    pipe: Any,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    picture: Image.Image | None = None,
    settings: ExplainSettings | None = None,
    conditioner: Conditioner | None = None,
    most_rows: int = MOST_ROWS,
    on_rows: Progress = lambda _: None,
) -> Explanation:
    """Explain what each phrase of a prompt does: in pictures that are drawn now, or in one that is there.

    pipe: a text-to-image pipeline that the Conditioner supports, in any dtype, compiled or quantised; it is left as it was.
    picture: is encoded by the pipeline's autoencoder and noised with noise of the seed; None draws `settings.count`.
    conditioner: of the pipeline, with its textual inversions.   most_rows: of a batch of the denoiser.
    on_rows: called with the number of denoiser rows that were computed.
    A step takes one row of the denoiser for each phrase (two where a pooled vector is told apart) and two more.
    Raises ConfigError for settings that do not fit, ModelError for a pipeline that cannot be explained.
    """
    settings = settings or ExplainSettings()
    conditioner = conditioner or Conditioner.from_pipeline(pipe)
    run = _run_of(pipe, conditioner, prompt, negative_prompt, settings)
    texts = explained_texts(conditioner, prompt, run.negative_prompt, settings, guided=run.guided)
    wanted = steps_at(settings.at, run.steps)
    through: dict[int, int] = {}
    pictures: list[ExplainedPicture] = []
    effects: list[_Effects] = []
    rows = 0
    for image, seed, calls in _pictures(run, picture, settings, wanted):
        made = [_effects(pipe, call, texts, most_rows, on_rows) for call in calls]
        rows += len(made) * len(texts.rows)
        if settings.finds_carriers and not pictures:
            through, spent = _through(pipe, calls[len(calls) // 2], texts, conditioner, most_rows, on_rows)
            rows += spent
        effects.append(_mean(made))
        pictures.append(ExplainedPicture(image=image, seed=seed, maps=effects[-1].maps))
    phrases = tuple(_phrases(texts, _mean(effects), pictures[0].places, through, settings))
    told = [*_findings(run)]
    if negative_prompt and not run.guided:
        told.append(_negative_unread(negative_prompt))
    return Explanation(
        prompt=prompt,
        negative_prompt=negative_prompt or "",
        phrases=phrases,
        pictures=tuple(pictures),
        findings=(*told, *verdicts(phrases, pictures[0].cells)),
        steps=run.steps,
        at_steps=wanted,
        rows=rows,
        dialect=settings.dialect,
        family=conditioner.family,
        stock=settings.stock,
    )


# drawing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Run:
    """A run of the pipeline with one prompt.

    guided: False where the negative prompt is not read; then there is none.   conditioning: None where the pipeline reads
    the prompt itself.
    """

    pipe: Any
    prompt: str
    negative_prompt: str | None
    conditioning: Conditioning | Composition | None
    steps: int
    guidance_scale: float
    guided: bool

    def __call__(self, **more: Any) -> object:
        """Call the pipeline; for a first step only, so that no composition of parts is needed."""
        texts: dict[str, Any] = {"prompt": self.prompt, "negative_prompt": self.negative_prompt}
        if self.conditioning is not None:
            texts = dict(self.conditioning.kwargs)
        elif not hasattr(type(self.pipe), "do_classifier_free_guidance"):
            del texts["negative_prompt"]
        steps = {"num_inference_steps": self.steps, "guidance_scale": self.guidance_scale}
        return self.pipe(**texts, **steps, **more, generator=torch.Generator("cpu").manual_seed(0))


def _run_of(
    pipe: Any, conditioner: Conditioner, prompt: str, negative_prompt: str | None, settings: ExplainSettings
) -> _Run:
    if not (conditioner.pipeline.shape.composes or conditioner.family == "flux"):
        raise ModelError(
            f"the prompts of {conditioner.pipeline.name} cannot be explained; use a pipeline of Stable Diffusion 1, 2, XL, 3 "
            "or Flux"
        )
    advised = advice(pipe)
    steps = advised.steps if settings.steps is None else settings.steps
    scale = advised.guidance_scale if settings.guidance_scale is None else settings.guidance_scale
    guided = scale > 1 and conditioner.family != "flux"
    negative_prompt = negative_prompt if guided else None
    conditioning: Conditioning | Composition | None = None
    if not settings.stock:
        if conditioner.family != "flux" and _composes(prompt, settings):
            conditioning = conditioner.compose(prompt, negative_prompt, **settings.reading, steps=steps)
        else:
            conditioning = conditioner(
                prompt, negative_prompt, prompt_2=settings.prompt_2, prompt_3=settings.prompt_3, **settings.reading,
                steps=steps,
            )  # fmt: skip
    return _Run(
        pipe=pipe,
        prompt=prompt,
        negative_prompt=negative_prompt,
        conditioning=conditioning,
        steps=steps,
        guidance_scale=scale,
        guided=guided,
    )


def _composes(prompt: str, settings: ExplainSettings) -> bool:
    """True for a prompt with AND. Raises ConfigError where other encoders have prompts of their own besides."""
    parts = plan(prompt, dialect=settings.dialect).parts
    if not any(part.how == "noise" for part in parts):
        return False
    if settings.prompt_2 or settings.prompt_3:
        raise ConfigError("the parts of AND are read by all encoders; leave out prompt_2 and prompt_3")
    return True


def _pictures(
    run: _Run, picture: Image.Image | None, settings: ExplainSettings, wanted: Sequence[int]
) -> Iterator[tuple[Image.Image, int, list[DenoiserCall]]]:
    """Yield each picture, the seed of its noise, and the denoiser's calls on the way to it."""
    if picture is not None:
        yield picture, settings.seed, calls_of_picture(run.pipe, picture, run, wanted=wanted, seed=settings.seed)
        return
    for seed in range(settings.seed, settings.seed + settings.count):
        with recorded(run.pipe, wanted) as calls:
            (drawn,) = generate(
                run.pipe, run.prompt, negative_prompt=run.negative_prompt or "", conditioning=run.conditioning, count=1,
                steps=run.steps, guidance_scale=run.guidance_scale, seed=seed,
                through="stock" if run.conditioning is None else "conditioner",
            )  # fmt: skip
        size = drawn.image.height, drawn.image.width
        yield drawn.image, seed, [replace(each, size=size) for each in calls]


# effects


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Effects:
    """maps: (P, h, w).   totals: (2), the mean of the whole prompt's effect on either side.   pooled: (P), shares."""

    maps: Tensor
    totals: Tensor
    pooled: Tensor


def _effects(pipe: Any, call: DenoiserCall, texts: ExplainedTexts, most_rows: int, on_rows: Progress) -> _Effects:
    """The effects of all phrases at one step, from one batch of the denoiser."""
    found = predictions(pipe, call, texts.rows, most_rows=most_rows, on_rows=on_rows).cpu()
    empty, at = found[0], 1
    maps = torch.zeros(len(texts.spans), *found.shape[-2:])
    pooled = torch.zeros(len(texts.spans))
    totals = []
    for side in (texts.sides.positive, texts.sides.negative):
        total = torch.zeros_like(empty)
        for part in side:
            count, numbers = len(part.phrases), list(part.phrases)
            whole, masked = found[at], found[at + 1 : at + 1 + count]
            at += 1 + count
            total += part.weight * (whole - empty)
            maps[numbers] = abs(part.weight) * effect_maps(whole, masked)
            if texts.has_pooled:
                pooled[numbers] = share(found[at : at + count] - whole, masked - whole)
                at += count
        totals.append(total.norm(dim=0).mean())
    return _Effects(maps=maps, totals=torch.stack(totals), pooled=pooled)


def _mean(several: Sequence[_Effects]) -> _Effects:
    return _Effects(
        maps=torch.stack([each.maps for each in several]).mean(dim=0),
        totals=torch.stack([each.totals for each in several]).mean(dim=0),
        pooled=torch.stack([each.pooled for each in several]).mean(dim=0),
    )


def _through(
    pipe: Any, call: DenoiserCall, texts: ExplainedTexts, conditioner: Conditioner, most_rows: int, on_rows: Progress
) -> tuple[dict[int, int], int]:
    """The phrases that act only through another one, by number, and the rows that it took to know."""
    found: dict[int, int] = {}
    spent = 0
    for part in texts.parts:
        if next(iter(part.plans.by_argument.values())).parts:
            continue  # a blend's tokens have no place of their own
        swaps = list(exchanges(part, texts.spans, conditioner.pipeline.layout, texts.chunks))
        if not swaps:
            continue
        rows = [part.whole, *part.masked, *(each.text for each in swaps)]
        made = predictions(pipe, call, rows, most_rows=most_rows, on_rows=on_rows)
        masked = dict(zip(part.phrases, made[1:], strict=False))
        found |= carriers(swaps, made[0], masked, made[1 + len(part.masked) :])
        spent += len(rows)
    return found, spent


def _phrases(
    texts: ExplainedTexts, effects: _Effects, places: Sequence[str], through: dict[int, int], settings: ExplainSettings
) -> Iterator[ExplainedPhrase]:
    means = effects.maps.mean(dim=(1, 2))
    for number, span in enumerate(texts.spans):
        total = float(effects.totals[int(span.side != "prompt")])
        strength = float(means[number]) / total if total else 0.0
        dead = strength < settings.threshold
        yield ExplainedPhrase(
            text=span.text,
            start=span.start,
            end=span.end,
            side=span.side,
            part=span.part,
            strength=strength,
            where="nowhere" if dead else places[number],
            dead=dead,
            cut=number in texts.cut,
            pooled_share=float(effects.pooled[number]) if texts.has_pooled else None,
            through=texts.spans[through[number]].text if number in through and not dead else None,
        )


def _findings(run: _Run) -> tuple[PlacedFinding, ...]:
    """The findings of the prompts themselves."""
    return () if run.conditioning is None else run.conditioning.findings


def _negative_unread(negative_prompt: str) -> PlacedFinding:
    message = "the negative prompt is not read: the picture is drawn without guidance by two sides"
    return PlacedFinding("negative-unused", message, 0, len(negative_prompt), "negative_prompt", 0)
