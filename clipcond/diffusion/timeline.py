"""The timeline of prompts that change over the steps of the sampler, and the step of each call of the denoiser."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clipcond.diffusion.prompt_plans import Prompts, Sides
from clipcond.errors import ConfigError
from clipcond.prompt.dialects.schedules import is_scheduled, resolve

_PRK_CALLS = 4  # of each Runge-Kutta step that PNDM starts with, unless its config skips them


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The prompts of each step, in segments. Segment i ends with step segment_ends[i] and reads variant segments[i]."""

    steps: int
    segment_ends: tuple[int, ...]
    segments: tuple[int, ...]
    prompts: tuple[tuple[str, ...], ...]  # of each variant: all prompts of a step, in the order of the call

    def variant(self, step: int) -> int:
        """The variant of a step, from 1; beyond the last step that of the last."""
        return self.segments[bisect_left(self.segment_ends, min(step, self.steps))]


def timeline(prompts: Sides[str], steps: int) -> Timeline:
    """Resolve the schedules of several prompts together, for so many steps of the sampler.

    Raises ConfigError for less than one step.
    """
    resolved = [resolve(prompt, steps) for prompt in prompts.positive]
    resolved += [resolve(prompt, steps, negative=True) for prompt in prompts.negative]
    ends = sorted({end for segments in resolved for end, _ in segments} | {steps})
    known: dict[tuple[str, ...], int] = {}
    segments = [known.setdefault(tuple(_at(each, end) for each in resolved), len(known)) for end in ends]
    return Timeline(steps=steps, segment_ends=tuple(ends), segments=tuple(segments), prompts=tuple(known))


def first_scheduled(prompts: Sides[Prompts]) -> str | None:
    """The first prompt that changes over the steps, None where none does."""
    flat = _flat(prompts)
    changing = [prompt for prompt in flat.positive if is_scheduled(prompt)]
    changing += [prompt for prompt in flat.negative if is_scheduled(prompt, negative=True)]
    return next(iter(changing), None)


def needed_steps(steps: int | None, prompt: str) -> int:
    """Return the steps, for a prompt that changes over them. Raises ConfigError where they are None."""
    if steps is None:
        raise ConfigError(
            f"the prompt {_short(prompt)!r} changes over the steps; say steps=…, as many as the pipeline will run, "
            "and give the pipeline callback_on_step_end=out.callback"
        )
    return steps


def variants_of(prompts: Sides[Prompts], steps: int) -> tuple[Timeline, list[Sides[Prompts]]]:
    """Return the timeline of all prompts of a call, and the prompts of each variant.

    Raises ConfigError for less than one step.
    """
    found = timeline(_flat(prompts), steps)

    def filled(side: Sequence[Prompts], variant: Iterator[str]) -> tuple[Prompts, ...]:
        return tuple({suffix: next(variant) for suffix in each} for each in side)

    variants = map(iter, found.prompts)
    return found, [Sides(filled(prompts.positive, each), filled(prompts.negative, each)) for each in variants]


def _flat(prompts: Sides[Prompts]) -> Sides[str]:
    """All prompts of a call, in one order for all variants."""
    positive, negative = (
        tuple(prompt for each in side for prompt in each.values()) for side in (prompts.positive, prompts.negative)
    )
    return Sides(positive, negative)


def step_of_call(call: int, scheduler: Any) -> int:
    """Return the step of the sampler, from 1, that a call of the denoiser, from 0, belongs to.

    Schedulers of a higher `order` call it that often a step: Heun at both ends of the step, KDPM2 at its start and its
    middle. PNDM repeats its first step once, or starts with three steps of four calls.
    """
    order = int(getattr(scheduler, "order", 1))
    if order > 1:
        return call // order + 1
    runge_kutta = getattr(scheduler, "prk_timesteps", None)
    if runge_kutta is None:
        return call + 1
    if call < len(runge_kutta):
        return call // _PRK_CALLS + 1
    extra = len(runge_kutta) - len(runge_kutta) // _PRK_CALLS if len(runge_kutta) else 1
    return max(call - extra, 0) + 1


def check_steps(timeline: Timeline, pipe: Any) -> None:
    """Raise ConfigError where the running pipeline takes another number of steps than the timeline was made for."""
    calls = getattr(pipe, "num_timesteps", None)
    steps = timeline.steps if calls is None else step_of_call(calls - 1, pipe.scheduler)
    if steps != timeline.steps:
        raise ConfigError(
            f"the schedule was made for {timeline.steps} steps, and the pipeline runs {steps}; "
            f"say steps={steps} (img2img runs its strength's share of num_inference_steps)"
        )


def _at(segments: Sequence[tuple[int, str]], step: int) -> str:
    return segments[bisect_left([end for end, _ in segments], step)][1]


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
