"""Which texts of a call hold at which step of the sampler, and to which step a call of the denoiser belongs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clipcond.diffusion.prompts import Texts
from clipcond.errors import ConfigError
from clipcond.prompt.dialects.schedules import is_scheduled, resolve

_PRK_CALLS = 4  # of each Runge-Kutta step that PNDM starts with, unless its config skips them


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Which texts hold when. Run i lasts to step lasts[i] and reads variant runs[i]."""

    steps: int
    lasts: tuple[int, ...]
    runs: tuple[int, ...]
    variants: tuple[tuple[str, ...], ...]  # all texts of a step, in the order in which they were given

    def variant(self, step: int) -> int:
        """The variant of a step, from 1; beyond the last step that of the last."""
        return self.runs[bisect_left(self.lasts, min(step, self.steps))]


def timeline(texts: Sequence[str], steps: int) -> Timeline:
    """Resolve the schedules of several texts together, for so many steps of the sampler.

    Raises ConfigError for less than one step.
    """
    resolved = [resolve(text, steps) for text in texts]
    lasts = sorted({last for runs in resolved for last, _ in runs} | {steps})
    known: dict[tuple[str, ...], int] = {}
    runs = [known.setdefault(tuple(_at(each, last) for each in resolved), len(known)) for last in lasts]
    return Timeline(steps=steps, lasts=tuple(lasts), runs=tuple(runs), variants=tuple(known))


def scheduled(texts: Iterable[Texts]) -> str | None:
    """The first text that changes over the steps, None where none does."""
    return next((text for each in texts for text in each.values() if is_scheduled(text)), None)


def needed(steps: int | None, text: str) -> int:
    """The steps, for a text that changes over them. Raises ConfigError where they were not given."""
    if steps is None:
        raise ConfigError(
            f"the prompt {_short(text)!r} changes over the steps; say steps=…, as many as the pipeline will run, "
            "and give the pipeline callback_on_step_end=out.callback"
        )
    return steps


def spread(texts: Sequence[Texts], negatives: Sequence[Texts], steps: int) -> tuple[Timeline, list[Texts], list[Texts]]:
    """The texts of every variant on both sides, laid end to end, so that one pass encodes them all.

    Returns the timeline and V·N texts of each side for V variants of N prompts. Raises ConfigError for less than one step.
    """
    sides = [*texts, *negatives]
    times = timeline([text for each in sides for text in each.values()], steps)
    flat: tuple[list[Texts], list[Texts]] = [], []
    for variant in times.variants:
        told = iter(variant)
        for side, given in zip(flat, (texts, negatives), strict=True):
            side += [{number: next(told) for number in each} for each in given]
    return times, *flat


def split(tensors: Mapping[str, Tensor], count: int) -> tuple[dict[str, Tensor], ...]:
    """The tensors of each of `count` variants, from those of all of them, laid end to end on the first axis."""
    parts = {name: tensor.chunk(count) for name, tensor in tensors.items()}
    return tuple({name: each[number] for name, each in parts.items()} for number in range(count))


def step_of_call(call: int, scheduler: Any) -> int:
    """The step of the sampler, from 1, that a call of the denoiser, from 0, belongs to.

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


def check_steps(times: Timeline, pipe: Any) -> None:
    """Raise ConfigError where the running pipeline takes another number of steps than the timeline was made for."""
    calls = getattr(pipe, "num_timesteps", None)
    steps = times.steps if calls is None else step_of_call(calls - 1, pipe.scheduler)
    if steps != times.steps:
        raise ConfigError(
            f"the schedule was made for {times.steps} steps, and the pipeline runs {steps}; "
            f"say steps={steps} (img2img runs its strength's share of num_inference_steps)"
        )


def _at(runs: Sequence[tuple[int, str]], step: int) -> str:
    return runs[bisect_left([last for last, _ in runs], step)][1]


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
