"""The best of many pictures without drawing them all to the end: those that look worst are given up on the way.

At a third and at two thirds of the steps the denoiser's prediction of the clean picture is decoded and scored; the better
half goes on (successive halving: Jamieson and Talwalkar 2016). The pipeline runs once, with a row for each candidate; its
denoiser computes those that are left, and the rows of the others are zeros that nobody looks at. So whatever a pipeline's
loop does, with a schedule, AND or regions, it does here too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil
from operator import itemgetter
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from clipcond.diffusion.counterfactual.steering import Steering
from clipcond.diffusion.explain.denoiser_calls import denoiser_of
from clipcond.diffusion.generate import Picture, PreparedCall, generators
from clipcond.errors import ConfigError, ModelError

AT = (1 / 3, 2 / 3)  # shares of the steps
LEFT = (1 / 2, 1 / 4)  # shares of the candidates
Score = Callable[[Sequence[Image.Image]], Sequence[float]]
_ALIKE = ("cross_attention_kwargs", "joint_attention_kwargs", "return_dict", "txt_ids", "img_ids")  # have no rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdaptivePictures:
    """The pictures that were drawn to the end, by their numbers, and the denoiser's rows.

    spent: rows that were computed.   whole: rows that all candidates to the end would have been.   left: candidates after
    each look.
    """

    pictures: tuple[Picture, ...]
    spent: int
    whole: int
    left: tuple[int, ...]


def cuts(count: int, keep: int, steps: int, left: Sequence[float] = LEFT) -> dict[int, int]:
    """The candidates that are left after a step, from 1, for each step that has a look.

    Raises ConfigError for fewer than three steps, for shares that grow or are none, and for nothing to give up.
    """
    if steps < len(AT) + 1:
        raise ConfigError(f"{steps} steps leave no time to look at candidates on the way; take {len(AT) + 1} or more")
    if not 1 <= keep < count:
        raise ConfigError(f"keep is {keep} of {count} candidates, expected fewer than there are")
    if len(left) != len(AT) or not 1 >= left[0] >= left[-1] > 0:
        raise ConfigError(f"left is {tuple(left)}, expected {len(AT)} shares of the candidates, the second no larger")
    return {round(at * steps): max(keep, ceil(share * count)) for at, share in zip(AT, left, strict=True)}


def moves(count: int, keep: int, steps: int) -> int:
    """The steps of all candidates together. Raises ConfigError as `cuts` does."""
    looks = cuts(count, keep, steps)
    ends = pairwise((0, *looks, steps))
    return sum(each * (end - start) for each, (start, end) in zip((count, *looks.values()), ends, strict=True))


def generate_adaptively(
    pipe: Any,
    call: PreparedCall,
    score: Score,
    *,
    count: int,
    keep: int,
    seed: int = 0,
    batch_size: int = 8,
    left: Sequence[float] = LEFT,
    on_step: Callable[[int], object] = lambda moved: None,
) -> AdaptivePictures:
    """Draw the better ones of `count` candidates, at least `keep`.

    call: of `clipcond.diffusion.generate.prepared`.   score: how well pictures fit, higher is better.   seed: candidate i has
    noise of seed + i, as in `generate`, and comes out as there, up to the rounding of other batches.   batch_size: candidates
    in one forward of the denoiser.   left: shares of the candidates that go on after each look.   on_step: called after each
    step with the candidates that it moved on.
    Raises ConfigError as `cuts` does, and for a steering, which draws each picture twice; ModelError for a scheduler that
    does not tell a clean picture.
    """
    if isinstance(call.conditioning, Steering):
        raise ConfigError("a steering draws each picture twice, which candidates that are given up cannot be")
    plan = cuts(count, keep, int(call.arguments["num_inference_steps"]), left)
    run = _Run(pipe, score, count, batch_size, dict(plan))

    def after(pipe: Any, step: int, time: Any, state: dict[str, Any]) -> dict[str, Any]:
        on_step(len(run.alive))
        run.look(step)
        return state if call.callback is None else call.callback(pipe, step, time, state)

    with run.open(call):
        latents = pipe(
            **call.rows(count), generator=generators(seed, count), callback_on_step_end=after, output_type="latent"
        ).images
    alive = sorted(run.alive.tolist())
    images = run.pictures(latents[alive], final=True)
    return AdaptivePictures(
        pictures=tuple(Picture(image, seed + number, number) for number, image in zip(alive, images, strict=True)),
        spent=run.spent,
        whole=run.whole,
        left=tuple(plan.values()),
    )


@dataclass(slots=True, eq=False)
class _Run:
    """One run of a pipeline: the candidates that are left, the clean pictures that it predicts, and the rows it costs."""

    pipe: Any
    score: Score
    count: int
    batch_size: int
    plan: dict[int, int]
    alive: Tensor = field(init=False)
    clean: Tensor | None = None
    spent: int = 0
    whole: int = 0

    def __post_init__(self) -> None:
        self.alive = torch.arange(self.count)

    @contextmanager
    def open(self, call: PreparedCall) -> Iterator[None]:
        """While open, the denoiser computes the rows that are left, in batches, and the scheduler tells clean pictures."""
        denoiser = denoiser_of(self.pipe)
        with ExitStack() as stack:
            # in the order in which they run: rows are chosen before AND makes more of them, and put back behind it
            stack.callback(denoiser.register_forward_pre_hook(self._chosen, with_kwargs=True).remove)
            stack.enter_context(call.open(self.pipe))
            stack.callback(denoiser.register_forward_hook(self._put_back, with_kwargs=True).remove)
            stack.enter_context(_replaced(denoiser, "forward", self._in_batches(denoiser.forward)))
            stack.enter_context(_replaced(self.pipe.scheduler, "step", self._remembered(self.pipe.scheduler.step)))
            yield

    def look(self, step: int) -> None:
        """Give up the candidates whose clean pictures score lowest, where a step, from 0, has a look."""
        calls = getattr(self.pipe, "num_timesteps", 0) or 1
        steps = round(calls / int(getattr(self.pipe.scheduler, "order", 1)))
        done = (step + 1) * steps / calls
        most = next((self.plan.pop(at) for at in list(self.plan) if at <= done), None)
        if most is None or most >= len(self.alive):
            return
        assert self.clean is not None
        scores = torch.as_tensor(list(self.score(self.pictures(self.clean[self.alive.to(self.clean.device)]))))
        best = scores.argsort(descending=True, stable=True)[:most]
        self.alive = self.alive[best.sort().values]

    def pictures(self, latents: Tensor, *, final: bool = False) -> list[Image.Image]:
        """Decode latents, a batch at a time."""
        found: list[Image.Image] = []
        for start in range(0, len(latents), self.batch_size):
            found += decode(self.pipe, latents[start : start + self.batch_size], checked=final)
        return found

    def _chosen(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        rows = _rows(args, kwargs)
        if rows % self.count:
            raise ConfigError(f"the denoiser is given {rows} rows for {self.count} candidates; expected a multiple")
        index = torch.cat([self.alive + self.count * side for side in range(rows // self.count)])
        return _pick(args, kwargs, rows, lambda value: value[index.to(value.device)])

    def _put_back(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        found = output[0] if isinstance(output, tuple) else output.sample
        sides = len(found) // len(self.alive)
        index = torch.cat([self.alive + self.count * side for side in range(sides)]).to(found.device)
        whole = torch.zeros(self.count * sides, *found.shape[1:], dtype=found.dtype, device=found.device)
        whole = whole.index_copy(0, index, found)
        return (whole, *output[1:]) if isinstance(output, tuple) else replace(output, sample=whole)

    def _in_batches(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def batched(*args: Any, **kwargs: Any) -> Any:
            rows = _rows(args, kwargs)
            each = rows // len(self.alive)
            self.spent += rows
            self.whole += each * self.count
            size = each * self.batch_size
            if rows <= size:
                return forward(*args, **kwargs)
            outputs = []
            for start in range(0, rows, size):
                own, named = _pick(args, kwargs, rows, itemgetter(slice(start, start + size)))
                outputs.append(forward(*own, **named))
            if isinstance(outputs[0], tuple):
                return (torch.cat([each[0] for each in outputs]), *outputs[0][1:])
            return replace(outputs[0], sample=torch.cat([each.sample for each in outputs]))

        return batched

    def _remembered(self, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def told(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            short = not kwargs.pop("return_dict", True)
            output = step(model_output, timestep, sample, *args, return_dict=True, **kwargs)
            self.clean = clean_prediction(self.pipe.scheduler, output, model_output, timestep, sample)
            return (output.prev_sample,) if short else output

        return told


def clean_prediction(scheduler: Any, output: Any, model_output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    """The clean latents that a step of a scheduler was made for. output: of the step, which is done.

    Raises ModelError for a scheduler that neither tells them nor says how its noise is mixed.
    """
    told: Tensor | None = getattr(output, "pred_original_sample", None)
    if told is not None:
        return told
    config = scheduler.config
    kind = getattr(config, "prediction_type", None)
    if getattr(scheduler, "model_outputs", None) and (
        getattr(config, "predict_x0", False) or str(getattr(config, "algorithm_type", "")).endswith("++")
    ):
        last: Tensor = scheduler.model_outputs[-1]
        return last
    if kind is None and getattr(scheduler, "step_index", None) is not None:  # flow matching: x = (1 − σ)·x₀ + σ·n
        sigma: Tensor = scheduler.sigmas[scheduler.step_index - 1].to(sample)
        return sample - sigma * model_output
    if kind in ("epsilon", "v_prediction", "sample") and hasattr(scheduler, "alphas_cumprod"):
        signal: Tensor = scheduler.alphas_cumprod[int(timestep)].to(sample)
        if kind == "sample":
            return model_output
        if kind == "v_prediction":
            return signal.sqrt() * sample - (1 - signal).sqrt() * model_output
        return (sample - (1 - signal).sqrt() * model_output) / signal.sqrt().clamp(min=1e-4)
    raise ModelError(
        f"{type(scheduler).__name__} does not tell the clean picture that it steps to; take another scheduler, such as DDIM"
    )


@torch.no_grad()
def decode(pipe: Any, latents: Tensor, *, checked: bool = False) -> list[Image.Image]:
    """Pictures of latents, as the pipeline itself makes them of its last ones.

    latents: (N, C, h, w), or (N, S, C) of packed ones, of the pipeline's own size.   checked: by the pipeline's safety
    checker, where it has one.
    """
    config = pipe.vae.config
    if latents.ndim == 3:
        side = pipe.default_sample_size * pipe.vae_scale_factor
        latents = pipe._unpack_latents(latents, side, side, pipe.vae_scale_factor)
    if getattr(config, "latents_mean", None) is not None and getattr(config, "latents_std", None) is not None:
        shape = (1, -1, 1, 1)
        mean, std = (torch.tensor(each).view(shape).to(latents) for each in (config.latents_mean, config.latents_std))
        latents = latents * std / config.scaling_factor + mean
    else:
        latents = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
    if pipe.vae.dtype == torch.float16 and getattr(config, "force_upcast", False) and hasattr(pipe, "upcast_vae"):
        pipe.vae.to(torch.float32)
    weights = next(pipe.vae.parameters())
    found = pipe.vae.decode(latents.to(weights.device, weights.dtype), return_dict=False)[0]
    shown = None
    if checked and getattr(pipe, "safety_checker", None) is not None and hasattr(pipe, "run_safety_checker"):
        found, bad = pipe.run_safety_checker(found, found.device, found.dtype)
        shown = None if bad is None else [not each for each in bad]
    images: list[Image.Image] = pipe.image_processor.postprocess(
        found, output_type="pil", do_denormalize=shown or [True] * len(found)
    )
    return images


def _rows(args: Any, kwargs: dict[str, Any]) -> int:
    """The rows of a call of a denoiser."""
    first = next((kwargs[name] for name in ("hidden_states", "sample") if name in kwargs), None)
    return len(args[0] if first is None else first)


def _pick(
    args: Any, kwargs: dict[str, Any], rows: int, choose: Callable[[Tensor], Tensor]
) -> tuple[Any, dict[str, Any]]:
    """The arguments of a call with some of its rows."""

    def picked(value: Any) -> Any:
        if isinstance(value, Tensor):
            return choose(value) if value.ndim and len(value) == rows else value
        if isinstance(value, (list, tuple)):
            return type(value)(map(picked, value))
        return {name: picked(each) for name, each in value.items()} if isinstance(value, dict) else value

    return picked(args), {name: each if name in _ALIKE else picked(each) for name, each in kwargs.items()}


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """While open, an object's own attribute has another value; it has none again where it had none."""
    had, own = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if had:
            setattr(owner, name, own)
        else:
            delattr(owner, name)
