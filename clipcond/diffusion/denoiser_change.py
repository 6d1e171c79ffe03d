"""The change of a denoiser's prediction when one text encoder of its pipeline is exchanged, on the same noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.diffusion.conditioner import Conditioner
from clipcond.errors import ConfigError, ModelError

_SEQUENCE, _POOLED = "encoder_hidden_states", "pooled_projections"


@dataclass(frozen=True, slots=True)
class DenoiserChange:
    """At one timestep: ‖after - before‖ / ‖before‖ of the predictions, mean over the prompts."""

    timestep: float
    change: float


@torch.no_grad()
def denoiser_changes(
    pipe: Any, prompts: Sequence[str], *, part: str, before: nn.Module, after: nn.Module, steps: int = 4, seed: int = 0
) -> tuple[DenoiserChange, ...]:
    """Run the denoiser from the same latents under the conditioning of either encoder, without guidance.

    pipe: of any family that the Conditioner supports; it is left as it was.   part: the encoder's name in the pipeline,
    `text_encoder` or `text_encoder_2`.   before, after: encoders of the pipeline's own class.   The latents are those of
    the pipeline's way from noise of `seed` to a picture of each prompt under `before`.
    Raises ConfigError for steps below 1, ModelError where the pipeline's denoiser is not called with its conditioning.
    """
    if steps < 1:
        raise ConfigError(f"steps is {steps}, expected 1 or more")
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    changes: list[list[float]] = []
    times: list[float] = []
    for prompt in prompts:
        tensors = [_conditioned(pipe, prompt, part, module) for module in (before, after)]
        with _recorded(denoiser) as calls:
            pipe(
                **tensors[0], guidance_scale=1.0, num_inference_steps=steps, output_type="latent",
                generator=torch.Generator("cpu").manual_seed(seed),
            )  # fmt: skip
        times = [_time(args, kwargs) for args, kwargs, _ in calls]
        changes.append([_change(denoiser, call, tensors[1]) for call in calls])
    return tuple(
        DenoiserChange(time, sum(each) / len(each))
        for time, each in zip(times, zip(*changes, strict=True), strict=True)
    )


Call = tuple[tuple[Any, ...], dict[str, Any], Tensor]


def _conditioned(pipe: Any, prompt: str, part: str, module: nn.Module) -> dict[str, Tensor]:
    """Return the positive arguments of the pipeline's call for a prompt, with another encoder in its place."""
    own = getattr(pipe, part)
    setattr(pipe, part, module.to(device=own.device, dtype=own.dtype))
    try:
        made = Conditioner.from_pipeline(pipe)(prompt).kwargs
        return {name: value for name, value in made.items() if not name.startswith("negative")}
    finally:
        setattr(pipe, part, own)


@contextmanager
def _recorded(denoiser: nn.Module) -> Iterator[list[Call]]:
    """While open, the calls of a module are listed."""
    calls: list[Call] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append((args, kwargs, _prediction(output)))

    handle = denoiser.register_forward_hook(record, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def _change(denoiser: nn.Module, call: Call, tensors: Mapping[str, Tensor]) -> float:
    """Call the denoiser again with other conditioning; the relative change of its prediction."""
    args, kwargs, was = call
    if _SEQUENCE not in kwargs or kwargs[_SEQUENCE].shape != tensors["prompt_embeds"].shape:
        raise ModelError(
            f"{type(denoiser).__name__} is not called with the conditioning of one prompt; its change is unknown"
        )
    given = {**kwargs, _SEQUENCE: tensors["prompt_embeds"].to(kwargs[_SEQUENCE])}
    pooled = tensors.get("pooled_prompt_embeds")
    if pooled is not None and _POOLED in given:
        given[_POOLED] = pooled.to(given[_POOLED])
    if pooled is not None and given.get("added_cond_kwargs"):
        given["added_cond_kwargs"] = {**given["added_cond_kwargs"], "text_embeds": pooled}
    now = _prediction(denoiser(*args, **given))
    return float((now - was).double().norm() / was.double().norm().clamp_min(1e-12))


def _prediction(output: Any) -> Tensor:
    prediction: Tensor = output[0] if isinstance(output, tuple) else output.sample
    return prediction


def _time(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
    time = kwargs.get("timestep", args[1] if len(args) > 1 else 0)
    return float(time.flatten()[0] if isinstance(time, Tensor) else time)
