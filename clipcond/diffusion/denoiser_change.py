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


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserChange:
    """At one timestep: ‖other - before‖ / ‖before‖ of the predictions, means over the prompts.

    change: under the encoder after.   text, pooled: under the encoder before with the empty prompt in place of each, and with
    its pooled vector alone in place of theirs: how much there is to lose; None where no prompt has words, and `pooled` where
    the pipeline reads no pooled vector.
    """

    timestep: float
    change: float
    text: float | None = None
    pooled: float | None = None


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
    found: list[list[_Changes]] = []
    times: list[float] = []
    for prompt in prompts:
        own, empty = _conditioned(pipe, prompt, part, before)
        other, _ = _conditioned(pipe, prompt, part, after)
        with _recorded(denoiser) as calls:
            pipe(
                **own, guidance_scale=1.0, num_inference_steps=steps, output_type="latent",
                generator=torch.Generator("cpu").manual_seed(seed),
            )  # fmt: skip
        times = [_time(args, kwargs) for args, kwargs, _ in calls]
        found.append([_changes(denoiser, call, own, other, empty if prompt else None) for call in calls])
    return tuple(
        DenoiserChange(
            timestep=time, change=sum(each["change"] for each in step) / len(step), text=_mean(step, "text"),
            pooled=_mean(step, "pooled"),
        )
        for time, step in zip(times, zip(*found, strict=True), strict=True)
    )  # fmt: skip


Call = tuple[tuple[Any, ...], dict[str, Any], Tensor]
_Changes = Mapping[str, float]


def _changes(
    denoiser: nn.Module,
    call: Call,
    own: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    empty: Mapping[str, Tensor] | None,
) -> _Changes:
    """The changes of one call's prediction, by the names of DenoiserChange."""
    found = {"change": _change(denoiser, call, other)}
    if empty is not None:
        found["text"] = _change(denoiser, call, empty)
        if "pooled_prompt_embeds" in own:
            pooled = {**own, "pooled_prompt_embeds": empty["pooled_prompt_embeds"]}
            found["pooled"] = _change(denoiser, call, pooled)
    return found


def _mean(step: Sequence[_Changes], name: str) -> float | None:
    known = [each[name] for each in step if name in each]
    return sum(known) / len(known) if known else None


def _conditioned(pipe: Any, prompt: str, part: str, module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the positive arguments of the pipeline's call for a prompt and, equally long, for the empty one, with another
    encoder in its place."""
    own = getattr(pipe, part)
    setattr(pipe, part, module.to(device=own.device, dtype=own.dtype))
    try:
        made = Conditioner.from_pipeline(pipe)([prompt, ""]).kwargs
        positive = {name: value for name, value in made.items() if not name.startswith("negative")}
        first, second = ({name: value[row : row + 1] for name, value in positive.items()} for row in (0, 1))
        return first, second
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
