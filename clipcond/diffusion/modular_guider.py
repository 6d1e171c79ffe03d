"""A guider for Modular Diffusers: AND, schedules, and weights that act in the denoiser's prediction.

    pipe.update_components(guider=ClipcondGuider(guidance_scale=5.0))

The loops of Modular Diffusers ask their guider which texts the denoiser is called with, one call for each side of guidance, and
what becomes of its outputs. So the guider gives them the step's own texts, further calls for the parts of an AND and for
texts with a phrase masked, and puts their outputs together as `steered` does in a classic pipeline. `ClipcondTextBlock` tells it
the prompts; without them it is diffusers' classifier-free guidance.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.guiders import ClassifierFreeGuidance
from torch import Tensor

from clipcond.diffusion.compose_denoiser import Composed, Composition
from clipcond.diffusion.counterfactual.denoiser import SteeredRun
from clipcond.diffusion.counterfactual.layout import Layout
from clipcond.diffusion.counterfactual.steering import Parts, SteeredPart, SteeredTexts, Steering
from clipcond.diffusion.denoiser_rows import is_asked
from clipcond.diffusion.prompt_plans import Sides
from clipcond.diffusion.timeline import step_of_call
from clipcond.errors import ConfigError

_STATES, _POOLED = ("prompt_embeds", "encoder_hidden_states"), ("text_embeds", "pooled_projections")
_NEGATIVE, _POSITIVE = "negative", "positive"


class ClipcondGuider(ClassifierFreeGuidance):  # type: ignore[misc]
    """Classifier-free guidance, with its settings, for prompts that the denoiser composes or that change over the steps."""

    _run: SteeredRun | None = None
    _steering: Steering | None = None
    _scheduler: Any = None

    def steer(self, steering: Steering | Composition | None, scheduler: Any = None) -> None:
        """Set the prompts of the next drawings; None for those that need no guider. scheduler: of the pipeline.

        Raises ConfigError for what is none, for regions, and for prompts without a scheduler.
        """
        if steering is not None and not isinstance(steering, (Steering, Composition)):
            raise ConfigError(
                "ClipcondGuider.steer takes what conditioner.compose(…) or .counterfactual(…) gives, or None, not a "
                f"{type(steering).__name__}"
            )
        if steering is not None and scheduler is None:
            raise ConfigError("the scheduler is not given; call pipe.guider.steer(parts, pipe.scheduler)")
        self._steering = steering_of(steering) if isinstance(steering, Composition) else steering
        self._scheduler, self._run = scheduler, None

    def prepare_inputs(self, data: Mapping[str, Any]) -> list[Any]:
        """The batches of a step: the positive side, its further texts, then the negative side and its own."""
        own = super().prepare_inputs(data)
        if self._steering is None:
            return list(own)
        states, pooled = (next((name for name in names if name in data), None) for names in (_STATES, _POOLED))
        if states is None:
            raise ConfigError(
                f"the denoising block gives its guider {', '.join(data)}, and none of {', '.join(_STATES)}"
            )
        by_side = dict(zip((_POSITIVE, _NEGATIVE), own, strict=False))
        if self._step == 0 or self._run is None:
            self._check_called(getattr(own[0], states))
            self._run = SteeredRun(None, self._steering)
        pictures = len(getattr(own[0], states))
        step = step_of_call(self._step, self._scheduler)
        sides = tuple(side for side in (_NEGATIVE, _POSITIVE) if side in by_side)
        layout, texts = self._run.lay_out(step, sides, pictures * len(sides), first=self._step == 0)
        numbers = _batches(layout, sides, pictures)
        self._slots = {row: (at, picture) for at, (_, rows) in enumerate(numbers) for picture, row in rows.items()}
        self._conditional = sum(side == _POSITIVE for side, _ in numbers)
        made = []
        for side, rows in numbers:
            chosen = torch.tensor([layout.texts[rows.get(at, at)] for at in range(pictures)])
            made.append(_with_texts(by_side[side], {states: texts.states, pooled: texts.pooled}, chosen))
        return made

    def __call__(self, data: Sequence[Any]) -> Any:
        """The guided prediction of a step, from the outputs of all its batches."""
        if self._steering is None or self._run is None:
            return super().__call__(data)
        rows = [data[at].noise_pred[picture] for _, (at, picture) in sorted(self._slots.items())]
        joined, pictures = self._run.joined(torch.stack(rows)), self._run.pictures
        negative = joined[:pictures] if len(joined) > pictures else None
        return self.forward(pred_cond=joined[-pictures:], pred_uncond=negative)

    @property
    def is_conditional(self) -> bool:
        """True for each batch of the positive side."""
        return bool(super().is_conditional if self._run is None else self._count_prepared <= self._conditional)

    def _check_called(self, given: Tensor) -> None:
        """Raise ConfigError for another prompt than the guider was told, and another number of steps."""
        assert self._steering is not None
        if not is_asked(given, self._steering.kwargs["prompt_embeds"]):
            raise ConfigError(
                "the pipeline draws another prompt than its ClipcondGuider was told; call pipe.guider.steer(None) before, or "
                "use ClipcondTextBlock, which does so"
            )
        timeline = self._steering.timeline
        if timeline is not None and timeline.steps != self._num_inference_steps:
            raise ConfigError(
                f"the schedule was made for {timeline.steps} steps, and the pipeline runs {self._num_inference_steps}; "
                f"say steps={self._num_inference_steps} (img2img runs its strength's share of num_inference_steps)"
            )


def _batches(layout: Layout, sides: Sequence[str], pictures: int) -> list[tuple[str, dict[int, int]]]:
    """The rows of a layout in batches of one side, each with a row of a picture at most: by picture, the positive side first.

    The first batch of a side is the pipeline's own.
    """
    by_side: dict[str, list[dict[int, int]]] = {side: [] for side in reversed(sides)}
    for row, index in enumerate(layout.index):
        batches, picture = by_side[sides[index // pictures]], index % pictures
        free = next((each for each in batches if picture not in each), None)
        if free is None:
            batches.append(free := {})
        free[picture] = row
    return [(side, rows) for side, batches in by_side.items() for rows in batches]


def _with_texts(batch: Any, texts: Mapping[str | None, Tensor | None], chosen: Tensor) -> Any:
    """A batch with other texts. texts: by name, (R, …).   chosen: (pictures) the number of each picture's text."""
    made = copy.copy(batch)
    for name, rows in texts.items():
        if name is not None and rows is not None:
            setattr(made, name, rows[chosen.to(rows.device)].to(getattr(batch, name)))
    return made


def steering_of(composition: Composition) -> Steering:
    """Return the parts of a composition as texts of a steering, with nothing to steer. Raises ConfigError for regions."""
    if composition.regions:
        raise ConfigError("regions need a classic pipeline, whose denoiser reads all texts in one batch")
    return Steering(
        variants=tuple(map(_texts_of, composition.variants)),
        timeline=composition.timeline,
        plans=composition.plans,
        negative_plans=composition.negative_plans,
        findings=composition.findings,
        family=composition.family,
        dialect=composition.dialect,
    )


def _texts_of(composed: Composed) -> SteeredTexts:
    prompts, most = composed.weights.shape
    assert composed.negative is not None  # of parts without regions
    pooled = None
    if composed.pooled is not None and composed.negative_pooled is not None:
        pooled = torch.cat([composed.pooled.flatten(0, 1), composed.negative_pooled])
    positive: list[Parts] = []
    for number, weights in enumerate(composed.weights.tolist()):
        parts = [SteeredPart(weight, number * most + at) for at, weight in enumerate(weights) if weight or not at]
        positive.append(tuple(parts))
    negative = tuple((SteeredPart(1.0, prompts * most + number),) for number in range(prompts))
    return SteeredTexts(
        states=torch.cat([composed.parts.flatten(0, 1), composed.negative]),
        pooled=pooled,
        prompts=Sides(tuple(positive), negative),
    )
