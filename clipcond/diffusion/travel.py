"""Prompt travel: a film whose prompt changes over its frames, by a hook on the denoiser for the time of a `with`.

    travel = conditioner.travel({0: "a fox", 16: "a wolf"}, "blurry", frames=32)
    with travelled(pipe, travel):
        frames = pipe(**travel.kwargs, num_inference_steps=20).frames[0]

The denoisers of AnimateDiff read a row of text for each frame, and its pipelines give every frame the same one: their calls
take embeds of a prompt, not of a frame. Under FreeNoise they take no embeds at all, and interpolate prompts of 77 positions
without weights. So the pipeline runs with the first frame's text (FreeNoise: the empty prompt), and its denoiser, and
any ControlNet, gets each frame's own. Nothing of the pipeline is changed for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.diffusion.denoiser_rows import STATES
from clipcond.diffusion.findings import PlacedFinding
from clipcond.encode.shapes import check_axes
from clipcond.errors import ConfigError
from clipcond.prompt.plan import PromptPlan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Travel:
    """The text of each of F frames on both sides of guidance, ready for `travelled` and a stock pipeline.

    pipe: the pipeline that it was made for.   takes_frames: its call takes `num_frames`; others have it from a film.
    Raises ShapeError where shapes do not fit one another.
    """

    states: Tensor  # (F, T, D)
    negative: Tensor  # (F, T, D)
    pooled: Tensor | None = None  # (1, P), of all frames together
    negative_pooled: Tensor | None = None  # (1, P)
    prompts: Mapping[int, str]  # by frame
    negative_prompts: Mapping[int, str]
    plans: tuple[PromptPlan, ...]  # of each of `prompts`
    negative_plans: tuple[PromptPlan, ...]
    findings: tuple[PlacedFinding, ...] = ()
    family: str
    dialect: str
    interpolation: str
    pipe: Any
    takes_frames: bool

    def __post_init__(self) -> None:
        size = check_axes("states", self.states, "F T D")
        check_axes("negative", self.negative, "F T D", F=size["F"], T=size["T"], D=size["D"])

    @property
    def frames(self) -> int:
        """The number of frames."""
        return len(self.states)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments for the pipeline's call while `travelled` is open: the first frame's text, and the frames."""
        count = {"num_frames": self.frames} if self.takes_frames else {}
        if free_noise(self.pipe):
            return {"prompt": "", **count}
        named = {
            "prompt_embeds": self.states[:1],
            "negative_prompt_embeds": self.negative[:1],
            "pooled_prompt_embeds": self.pooled,
            "negative_pooled_prompt_embeds": self.negative_pooled,
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None} | count


def free_noise(pipe: Any) -> bool:
    """True for a pipeline with FreeNoise enabled, whose call takes prompts and no embeds."""
    return bool(getattr(pipe, "free_noise_enabled", False))


@contextmanager
def travelled(pipe: Any, travel: Travel) -> Iterator[None]:
    """While open, one call of the pipeline with `travel.kwargs` draws each frame by its own text.

    pipe: the pipeline that the travel was made for: of AnimateDiff, with ControlNet, SparseCtrl, PAG, another film, FreeNoise or
    without. Raises ConfigError for what is no travel, and in the call for another prompt or another number of frames.
    """
    if not isinstance(travel, Travel):
        raise ConfigError(f"travelled takes what conditioner.travel(…) gives, not a {type(travel).__name__}")
    readers = [getattr(pipe, name, None) for name in ("unet", "controlnet")]
    own = _Frames(pipe, travel)
    handles = [
        each.register_forward_pre_hook(own.before, with_kwargs=True) for each in readers if isinstance(each, nn.Module)
    ]
    if not handles:
        raise ConfigError(f"{type(pipe).__name__} has no unet whose frames could have texts of their own")
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


_ALIKE = (0.02, 0.02)  # relative and absolute: bfloat16 rounds to 0.008, and other texts differ by much more


@dataclass(frozen=True, slots=True, eq=False)
class _Frames:
    """The denoiser's rows of text, a frame each, put in call by call."""

    pipe: Any
    travel: Travel

    def before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = kwargs.get(STATES)
        if not isinstance(given, Tensor):
            return args, kwargs
        sides = self._sides(module, len(given))
        self._check_called(given, sides)
        return args, {**kwargs, STATES: torch.cat(sides).to(given)}

    def _sides(self, module: nn.Module, rows: int) -> list[Tensor]:
        """The sides that a call of a module reads, in the order of its rows.

        Raises ConfigError for another number of frames.
        """
        from clipcond.diffusion.step_callback import POSITIVE, running_sides  # imports diffusers

        travel, running = self.travel, running_sides(self.pipe)
        if rows == travel.frames and module is not self.pipe.unet:  # a ControlNet that guesses
            running = (POSITIVE,)
        if rows != travel.frames * len(running):
            raise ConfigError(
                f"the denoiser reads {rows / len(running):g} frames of one film, and the travel was made for {travel.frames}; "
                "call pipe(**travel.kwargs, …), for a film of so many frames"
            )
        return [travel.states if side == POSITIVE else travel.negative for side in running]

    def _check_called(self, given: Tensor, sides: list[Tensor]) -> None:
        """Raise ConfigError where the pipeline was called with other texts than the travel gives it.

        FreeNoise is given the empty prompt, which is one text in all frames and on both sides; it interpolates even that.
        """
        frames = self.travel.frames
        same = free_noise(self.pipe)
        wanted = [given[:1] if same else each[:1].to(given) for each in sides]
        for at, first in enumerate(wanted):
            own = given[at * frames : (at + 1) * frames]
            if own.shape[1:] != first.shape[1:] or not torch.allclose(own, first, *_ALIKE):
                raise ConfigError(
                    "the pipeline was called with another prompt while a travel is open; "
                    "call it with **travel.kwargs, and with other prompts outside of the block"
                )
