"""Steering by hooks on the denoiser, for the time of a `with`: each phrase acts at its weight, where it acts at all.

    steering = conditioner.counterfactual("a (red circle:0) and a (blue star:1.5)", dialect="a1111")
    with steered(pipe, steering):
        pictures = pipe(**steering.kwargs, num_inference_steps=20).images

The pipeline's denoiser gets, as further rows of its batch, each text with a phrase masked, and its prediction is put
together by `maps.steered_prediction`. Both sides of guidance are steered before the pipeline guides by them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.diffusion.compose_denoiser import combine, refuse_three_sides
from clipcond.diffusion.counterfactual.layout import Layout, Mixture
from clipcond.diffusion.counterfactual.maps import acting_places, effect_map, steered_prediction
from clipcond.diffusion.counterfactual.steering import SteeredPhrase, SteeredTexts, Steering
from clipcond.diffusion.denoiser_rows import STATES, is_asked, with_rows
from clipcond.diffusion.timeline import check_steps, step_of_call
from clipcond.errors import ConfigError


@contextmanager
def steered(pipe: Any, steering: Steering) -> Iterator[SteeredRun]:
    """While open, one call of the pipeline with `steering.kwargs` draws every phrase at its weight.

    pipe: of Stable Diffusion 1, 2, XL, 3 or Flux, in any of its uses; a batch of the denoiser is a row more for each steered
    phrase of each picture.   Gives the run, whose `places` say where phrases act.
    Raises ConfigError for a pipeline without a denoiser, and for one that guides by three sides.
    """
    if not isinstance(steering, Steering):
        raise ConfigError(f"steered takes what conditioner.counterfactual(…) gives, not a {type(steering).__name__}")
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    if not isinstance(denoiser, nn.Module):
        raise ConfigError(f"{type(pipe).__name__} has no unet and no transformer whose prediction could be steered")
    refuse_three_sides(pipe, "steering")
    run = SteeredRun(pipe, steering)
    handles = [
        denoiser.register_forward_pre_hook(run.before, with_kwargs=True),
        denoiser.register_forward_hook(run.after, with_kwargs=True),
    ]
    try:
        yield run
    finally:
        for handle in handles:
            handle.remove()


@dataclass(slots=True, eq=False)
class _Phrase:
    """The effect of a phrase in one picture so far. effect: the sum of its maps.   difference: ε(c) − ε(c₋ₚ), the last one."""

    effect: Tensor
    difference: Tensor


@dataclass(slots=True, eq=False)
class SteeredRun:
    """The denoiser's input with all texts, and its output put together again, call by call."""

    pipe: Any
    steering: Steering
    calls: int = 0
    pictures: int = 0
    _layout: Layout | None = field(default=None)
    _phrases: dict[tuple[int, int, int], _Phrase] = field(default_factory=dict)  # by picture, variant, text
    _made: dict[str, int] = field(default_factory=dict)  # calls for each side that is asked for
    _variant: int = 0

    def before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        states = kwargs.get(STATES)
        if not isinstance(states, Tensor) or kwargs.get("skip_layers") is not None:  # SD3's further call, without text
            self._layout = None
            return args, kwargs
        sides = self._sides(states)
        call = self._made.get(sides[-1], 0)
        self._made[sides[-1]] = call + 1
        step = step_of_call(call, self.pipe.scheduler)
        if call == 0:
            self._check_called(states, sides)
        layout, texts = self.lay_out(step, sides, len(states), first=call == 0)
        chosen = torch.tensor(layout.texts)
        pooled = None if texts.pooled is None else texts.pooled[chosen.to(texts.pooled.device)]
        return with_rows(args, kwargs, torch.tensor(layout.index), texts.states[chosen.to(texts.states.device)], pooled)

    def after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if self._layout is None:
            return None
        if isinstance(output, tuple):
            return (self.joined(output[0]), *output[1:])
        return replace(output, sample=self.joined(output.sample))

    def lay_out(self, step: int, sides: tuple[str, ...], rows: int, *, first: bool) -> tuple[Layout, SteeredTexts]:
        """Return the layout of a batch, and the texts that it is of. rows: of all sides.   first: of a drawing.

        `joined` is for the denoiser's output of that batch.
        """
        texts = self._texts_of(step, first=first)
        fresh = (step - 1) % self.steering.every == 0 or not self._known(texts, sides)
        self._layout = Layout.of(texts, sides, rows, fresh=fresh)
        self.pictures = self._layout.pictures
        return self._layout, texts

    @property
    def places(self) -> Tensor | None:
        """The places of each picture where phrases act that were steered until now: (pictures, 1, h, w), or (pictures, N, 1)
        of patches in a row, float32 from 0 to 1. None where no phrase was steered.
        """
        if not self._phrases:
            return None
        found: dict[int, Tensor] = {}
        for (picture, _, _), phrase in self._phrases.items():
            own = acting_places(phrase.effect)
            found[picture] = torch.maximum(found[picture], own) if picture in found else own
        none = torch.zeros_like(next(iter(found.values())))
        return torch.stack([found.get(picture, none) for picture in range(self.pictures)])

    # a call

    def _texts_of(self, step: int, *, first: bool) -> SteeredTexts:
        timeline = self.steering.timeline
        if timeline is not None:
            if first:
                check_steps(timeline, self.pipe)
            self._variant = timeline.variant(step)
        return self.steering.variants[self._variant]

    def _sides(self, states: Tensor) -> tuple[str, ...]:
        """The sides of guidance that the rows of a call are of, in order."""
        if hasattr(type(self.pipe), "do_classifier_free_guidance"):
            return ("negative", "positive") if self.pipe.do_classifier_free_guidance else ("positive",)
        # Flux makes a call for each side
        negative = self.steering.kwargs.get("negative_prompt_embeds")
        due = self._made.get("positive", 0) > self._made.get("negative", 0)
        return ("negative",) if due and negative is not None and is_asked(states, negative) else ("positive",)

    def _check_called(self, states: Tensor, sides: tuple[str, ...]) -> None:
        """Raise ConfigError unless the pipeline was called with what the steering gives it."""
        asked = self.steering.kwargs["prompt_embeds" if sides[-1] == "positive" else "negative_prompt_embeds"]
        if not is_asked(states[-(len(states) // len(sides)) :], asked):
            raise ConfigError(
                "the pipeline was called with another prompt while a steering is open; "
                "call it with **steering.kwargs, and with other prompts outside of the block"
            )

    def _known(self, texts: SteeredTexts, sides: tuple[str, ...]) -> bool:
        """True if each phrase of these sides has a difference already."""
        numbers = {
            phrase.other
            for side in sides
            for parts in getattr(texts.prompts, side)
            for part in parts
            for phrase in part.phrases
        }
        return numbers <= {text for _, variant, text in self._phrases if variant == self._variant}

    # its output

    def joined(self, output: Tensor) -> Tensor:
        """Return the output for the pipeline, with its own number of rows, from that of the laid out batch."""
        layout = self._layout
        assert layout is not None
        mixed: list[Tensor] = []
        for mixture in layout.mixtures:
            parts = [self._part(output, mixture.picture, each.whole, each.phrases) for each in mixture.parts]
            if mixture.is_plain:
                mixed.append(parts[0])
                continue
            # the negative side of guidance is steered by now
            against = mixed[mixture.picture] if layout.guided else output[layout.negative_row(mixture.picture)]
            mixed.append(_combined(against, parts, mixture))
        return torch.stack(mixed)

    def _part(
        self, output: Tensor, picture: int, whole: int, phrases: tuple[tuple[SteeredPhrase, int | None], ...]
    ) -> Tensor:
        """The steered prediction of one text of a picture; phrases with the row of their own text, None for none now."""
        own = output[whole]
        if not phrases:
            return own
        known = [self._phrase(own, output, (picture, self._variant, phrase.other), row) for phrase, row in phrases]
        return steered_prediction(
            own,
            torch.stack([own - each.difference for each in known])
            if any(row is None for _, row in phrases)
            else torch.stack([output[row] for _, row in phrases if row is not None]),
            torch.tensor([phrase.weight for phrase, _ in phrases]),
            torch.stack([acting_places(each.effect) for each in known]),
        )

    def _phrase(self, own: Tensor, output: Tensor, key: tuple[int, int, int], row: int | None) -> _Phrase:
        if row is None:
            return self._phrases[key]
        difference = own - output[row]
        before = self._phrases.get(key)
        effect = effect_map(difference)
        self._phrases[key] = _Phrase(effect if before is None else before.effect + effect, difference)
        return self._phrases[key]


def _combined(negative: Tensor, parts: list[Tensor], mixture: Mixture) -> Tensor:
    """u + Σ wᵢ (cᵢ − u) of one picture."""
    weights = torch.tensor([each.weight for each in mixture.parts])
    owners = torch.zeros(len(parts), dtype=torch.int64, device=negative.device)
    return combine(negative[None], torch.stack(parts), weights.to(negative.device), owners)[0]
