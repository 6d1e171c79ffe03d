"""Calls of a denoiser that can be made again with other texts: of a picture as it is drawn, or of one that is there.

A call is recorded from the pipeline itself, so that whatever the family hands its denoiser besides the text is there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from clipcond.diffusion.denoiser_rows import STATES, with_rows
from clipcond.diffusion.timeline import step_of_call
from clipcond.errors import ConfigError, ModelError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DenoiserCall:
    """One call for one picture: all that the denoiser was given, of which the last row counts.

    step: of the sampler, from 1.   size: (height, width) of the picture.
    """

    step: int
    size: tuple[int, int]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """The rows of the call as it was made."""
        return len(self.kwargs[STATES])

    @property
    def length(self) -> int:
        """T, the positions of the text that it was given."""
        return int(self.kwargs[STATES].shape[1])

    def with_texts(self, states: Tensor, pooled: Tensor | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call for the same latents under R texts.

        states: (R, T, D).   pooled: (R, P), for families that have such a vector.
        """
        return with_rows(self.args, self.kwargs, torch.full((len(states),), self.rows - 1), states, pooled)


def denoiser_of(pipe: Any) -> nn.Module:
    """The U-Net or transformer of a pipeline. Raises ModelError where it has none."""
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    if not isinstance(denoiser, nn.Module):
        raise ModelError(f"{type(pipe).__name__} has no unet and no transformer; its prompts cannot be explained")
    return denoiser


def steps_at(fractions: Sequence[float], steps: int) -> tuple[int, ...]:
    """The steps, from 1, at shares of the sampler's way from noise to picture, each once.

    Raises ConfigError for none, and for a share that is not from 0 to 1.
    """
    if not fractions or any(not 0 <= each <= 1 for each in fractions):
        raise ConfigError(f"at is {list(fractions)}, expected shares of the steps from 0 to 1, one or more")
    return tuple(dict.fromkeys(1 + round(each * (steps - 1)) for each in sorted(fractions)))


@contextmanager
def recorded(pipe: Any, wanted: Sequence[int]) -> Iterator[list[DenoiserCall]]:
    """While open, for one run of the pipeline, the first call of each wanted step is listed; `size` is not known yet.

    wanted: steps, from 1.
    """
    calls: list[DenoiserCall] = []
    made = 0

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        nonlocal made
        if not isinstance(kwargs.get(STATES), Tensor) or kwargs.get("skip_layers") is not None:
            return  # SD3's further call, without text
        step = step_of_call(made, pipe.scheduler)
        made += 1
        if step in wanted and step not in [each.step for each in calls]:
            calls.append(DenoiserCall(step=step, size=(0, 0), args=args, kwargs=kwargs))

    handle = denoiser_of(pipe).register_forward_hook(record, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def calls_of_picture(
    pipe: Any, picture: Image.Image, run: Callable[..., object], *, wanted: Sequence[int], seed: int
) -> list[DenoiserCall]:
    """The calls that a pipeline would make at some steps on its way to a picture that is there.

    picture: of any size; it is read at the size that the pipeline draws, in its own shape, encoded by the autoencoder and
    noised to each wanted step with noise of `seed`.   run: calls the pipeline with its texts, steps and guidance, and the
    further arguments that it is given.
    Raises ModelError where the autoencoder gives latents of another shape than the denoiser takes.
    """
    pixels = pipe.image_processor.preprocess(_fitted(pipe, picture.convert("RGB")))
    size = int(pixels.shape[-2]), int(pixels.shape[-1])
    with recorded(pipe, [1]) as calls:
        run(height=size[0], width=size[1], output_type="latent", callback_on_step_end=_interrupt)
    (first,) = calls
    clean = _latents(pipe, pixels)
    noise = torch.randn(clean.shape, generator=torch.Generator("cpu").manual_seed(seed)).to(clean)
    times = pipe.scheduler.timesteps
    order = int(getattr(pipe.scheduler, "order", 1))
    made = []
    for step in wanted:
        time = times[min((step - 1) * order, len(times) - 1)]
        made.append(
            replace(_moved(pipe, first, _noised(pipe.scheduler, clean, noise, time), time), step=step, size=size)
        )
    return made


def _fitted(pipe: Any, picture: Image.Image) -> Image.Image:
    """A picture with about as many pixels as the pipeline draws."""
    denoiser: Any = denoiser_of(pipe)
    own = getattr(pipe, "default_sample_size", None) or denoiser.config.sample_size
    sides = list(own) if isinstance(own, (list, tuple)) else [own, own]
    ratio = (sides[0] * sides[-1] * pipe.vae_scale_factor**2 / (picture.width * picture.height)) ** 0.5
    step = int(pipe.image_processor.config.vae_scale_factor)
    size = [max(1, round(each * ratio / step)) * step for each in picture.size]
    return picture if 0.9 < ratio < 1.1 else picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def _interrupt(pipe: Any, step: int, time: Any, state: dict[str, Any]) -> dict[str, Any]:
    """End a run after its first step, in diffusers' own way."""
    pipe._interrupt = True
    return state


def _latents(pipe: Any, pixels: Tensor) -> Tensor:
    """(1, C, h, w): the autoencoder's mean for a picture, scaled as the denoiser knows it."""
    vae = pipe.vae
    config = vae.config
    with torch.no_grad():
        found = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mode()
    if getattr(config, "latents_mean", None) is not None and getattr(config, "latents_std", None) is not None:
        shape = (1, -1, 1, 1)
        mean, std = (torch.tensor(each).view(shape).to(found) for each in (config.latents_mean, config.latents_std))
        scaled: Tensor = (found - mean) * config.scaling_factor / std
    else:
        scaled = (found - (getattr(config, "shift_factor", None) or 0.0)) * config.scaling_factor
    return scaled


def _noised(scheduler: Any, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The denoiser's input at a timestep, as the scheduler would hand it on."""
    fresh = copy.deepcopy(scheduler)
    for name in ("_step_index", "_begin_index"):
        if hasattr(fresh, name):
            setattr(fresh, name, None)
    at = time.reshape(1).to(clean.device)
    noised: Tensor
    if hasattr(fresh, "scale_noise"):
        noised = fresh.scale_noise(clean, at, noise)
    else:
        noised = fresh.scale_model_input(fresh.add_noise(clean, noise, at), time)
    return noised


def _moved(pipe: Any, call: DenoiserCall, latents: Tensor, time: Tensor) -> DenoiserCall:
    """A call with other latents at another time; the time is scaled as the pipeline scales it."""
    named = "hidden_states" if "hidden_states" in call.kwargs else "sample"
    own = call.kwargs[named] if named in call.kwargs else call.args[0]
    if own.ndim == 3:  # Flux: patches in a row
        latents = pipe._pack_latents(latents, *latents.shape)
    if own.shape[1:] != latents.shape[1:]:
        raise ModelError(
            f"the autoencoder of {type(pipe).__name__} gives latents of shape {tuple(latents.shape[1:])}, but its denoiser "
            f"takes {tuple(own.shape[1:])}; this kind of pipeline cannot explain a picture that is there"
        )
    first = call.kwargs["timestep"] if "timestep" in call.kwargs else call.args[1]
    scale = float(torch.as_tensor(first).flatten()[-1]) / float(pipe.scheduler.timesteps[0])
    moved = torch.full_like(torch.as_tensor(first), float(time) * scale)
    latents = latents.to(own).expand(own.shape)
    args, kwargs = list(call.args), dict(call.kwargs)
    for name, at, value in ((named, 0, latents), ("timestep", 1, moved)):
        if name in kwargs:
            kwargs[name] = value
        else:
            args[at] = value
    return replace(call, args=tuple(args), kwargs=kwargs)
