"""Prompts that change over the steps: every text is encoded before the first step, a callback puts them in.

A pipeline calls `callback_on_step_end` after every call of its denoiser and takes back the tensors that the callback
returns. Under guidance its `prompt_embeds` are `cat([negative, positive])` by then (three of them in InstructPix2Pix and
with perturbed-attention guidance), and its `negative_prompt_embeds` are not read again: so the sides are put together
anew. Steps are those of the sampler, from 1; a second-order scheduler calls the denoiser twice a step, PNDM once more in
its first.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.callbacks import PipelineCallback
from torch import Tensor

from clipcond.diffusion.pipeline_shapes import PROMPT_AXIS
from clipcond.diffusion.timeline import Timeline, check_steps, step_of_call
from clipcond.errors import ConfigError

_NEGATIVE, _POSITIVE = 0, 1
# the tensors of a denoising loop, and the arguments of the call that it makes them from: (negative side, positive side)
_ARGUMENTS: Mapping[str, tuple[str, str]] = {
    "prompt_embeds": ("negative_prompt_embeds", "prompt_embeds"),
    "prompt_embeds_t5": ("negative_prompt_embeds", "prompt_embeds"),
    "prompt_embeds_llama3": ("negative_prompt_embeds_llama3", "prompt_embeds_llama3"),
    "add_text_embeds": ("negative_pooled_prompt_embeds", "pooled_prompt_embeds"),
    "pooled_prompt_embeds": ("negative_pooled_prompt_embeds", "pooled_prompt_embeds"),
}


class StepCallback(PipelineCallback):  # type: ignore[misc]
    """Puts in the embeddings of the next step; for `callback_on_step_end` of the pipeline it was made for.

    Being one of diffusers' own callbacks, it tells the pipeline which tensors it wants, and goes into
    `MultiPipelineCallbacks` beside others. It changes nothing of the pipeline and can be used again.
    """

    def __init__(self, pipe: Any, timeline: Timeline, states: Sequence[Mapping[str, Tensor]]) -> None:
        """pipe: the pipeline, to see which tensors its loop takes back.   states: of each variant, the tensors that the
        call takes, (B, …) each. Raises ConfigError where the pipeline cannot change what the schedule changes.
        """
        super().__init__()
        self.timeline, self.states = timeline, tuple(states)
        self._names = _taken_back(pipe)
        _check_reached(pipe, self._names, self.states)

    @property
    def keeps_pooled(self) -> bool:
        """True if the pipeline keeps the pooled vectors of the first step, though the schedule changes them."""
        reached = {side for name in self._names for side in _ARGUMENTS[name]}
        return any("pooled" in side and side not in reached for side in _changing(self.states))

    @property
    def tensor_inputs(self) -> list[str]:
        """The tensors that the callback is to be given, for `callback_on_step_end_tensor_inputs`."""
        return list(self._names)

    def callback_fn(
        self, pipeline: Any, step_index: int, timesteps: Any, callback_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """The tensors of the denoiser's next call, in the dtype and on the device of those that it had."""
        calls = getattr(pipeline, "num_timesteps", None)
        if step_index == 0:
            check_steps(self.timeline, pipeline)
        if calls is not None and step_index + 1 >= calls:
            return callback_kwargs
        state = self.states[self.timeline.variant(step_of_call(step_index + 1, pipeline.scheduler))]
        missing = [name for name in self._names if name not in callback_kwargs]
        if missing:  # called by a function of the user's own: diffusers asks a PipelineCallback what it wants
            raise ConfigError(
                f"the callback is not given {' and '.join(missing)}; call pipe(**out.kwargs, "
                "callback_on_step_end=out.callback, "
                "callback_on_step_end_tensor_inputs=out.callback_on_step_end_tensor_inputs)"
            )
        sides = _sides(pipeline)
        new = {
            name: _like(name, callback_kwargs[name], [state[_ARGUMENTS[name][side]] for side in sides])
            for name in self._names
        }
        return {**callback_kwargs, **new}


def _taken_back(pipe: Any) -> tuple[str, ...]:
    """The tensors that a pipeline's loop takes back from a callback and that hold text."""
    if "callback_on_step_end" not in inspect.signature(type(pipe).__call__).parameters:
        raise ConfigError(
            f"{type(pipe).__name__} takes no callback_on_step_end, so that its prompt cannot change over the steps"
        )
    return tuple(each for each in getattr(pipe, "_callback_tensor_inputs", ()) if each in _ARGUMENTS)


def _check_reached(pipe: Any, names: Sequence[str], states: Sequence[Mapping[str, Tensor]]) -> None:
    """Raise ConfigError where the schedule changes token states that the loop does not take back."""
    joined = hasattr(type(pipe), "do_classifier_free_guidance")  # both sides in one tensor
    reached = {side for each in names for side in _ARGUMENTS[each][not joined :]}
    for side in _changing(states):
        if side not in reached and "pooled" not in side:
            raise ConfigError(
                f"{type(pipe).__name__} does not take {side} back from a callback: its text cannot change over the steps"
            )


def _changing(states: Sequence[Mapping[str, Tensor]]) -> list[str]:
    """The tensors that are not the same in all variants."""
    first = states[0]
    return [name for name in first if any(not torch.equal(each[name], first[name]) for each in states[1:])]


def _sides(pipeline: Any) -> tuple[int, ...]:
    """The sides that the running loop has laid end to end, in its order."""
    guided = bool(getattr(pipeline, "do_classifier_free_guidance", False))
    if guided and hasattr(type(pipeline), "image_guidance_scale"):  # InstructPix2Pix: text, picture alone, neither
        return _POSITIVE, _NEGATIVE, _NEGATIVE
    perturbed = bool(getattr(pipeline, "do_perturbed_attention_guidance", False))  # the prompt a second time
    return (*[_NEGATIVE] * guided, _POSITIVE, *[_POSITIVE] * perturbed)


def _like(name: str, current: Tensor, sides: Sequence[Tensor]) -> Tensor:
    """The sides in one tensor, each row as often as the pipeline had repeated it."""
    axis = PROMPT_AXIS.get(name, 0)
    rows = torch.cat(list(sides), dim=axis).to(current)
    there, wanted = current.shape[axis], rows.shape[axis]
    if there % wanted:
        raise ConfigError(f"the pipeline has {there} rows of {name}, expected {wanted} or a multiple")
    repeats = there // wanted
    return rows if repeats == 1 else rows.repeat_interleave(repeats, dim=axis)
