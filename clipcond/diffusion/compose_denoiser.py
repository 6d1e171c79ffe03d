"""A1111's AND: several prompts for one picture, composed in the output of the denoiser.

    parts = conditioner.compose("a red circle AND a blue square :0.8", "blurry")
    with composed(pipe, parts):
        pictures = pipe(**parts.kwargs, num_inference_steps=20).images

With u for the negative prompt and cᵢ for the parts, a step goes by `u + Σ wᵢ · scale · (cᵢ − u)`. The pipeline itself does
the outer half, `u + scale · (c − u)`; while `composed` is open, its denoiser gets all parts as further rows of its
batch and returns `c = u + Σ wᵢ (cᵢ − u)`. So everything else a pipeline can do stays as it is, and nothing of the
pipeline is changed for good.

Regions are parts whose weight differs from place to place, with a base prompt that has the rest: its weights and theirs add
up to 1 everywhere, so that u is not needed for c, and families without a negative side can have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.diffusion.findings import PlacedFinding
from clipcond.diffusion.regions import Areas, Region
from clipcond.diffusion.timeline import Timeline, check_steps, step_of_call
from clipcond.encode.shapes import check_axes
from clipcond.errors import ConfigError
from clipcond.prompt.plan import PromptPlan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Composed:
    """The parts of B prompts, up to M each, and their negative sides. Raises ShapeError where shapes do not fit.

    areas: of parts that have regions of the picture.   closed: the weights add up to 1 everywhere.
    """

    parts: Tensor  # (B, M, T, D)
    weights: Tensor  # (B, M) float32 on the CPU; 0 where a prompt has fewer parts
    negative: Tensor | None  # (B, T, D); None only in families without one, for parts that are closed
    pooled: Tensor | None = None  # (B, M, P)
    negative_pooled: Tensor | None = None  # (B, P)
    areas: Areas | None = None
    closed: bool = False

    def __post_init__(self) -> None:
        size = check_axes("parts", self.parts, "B M T D")
        check_axes("weights", self.weights, "B M", B=size["B"], M=size["M"])
        if self.negative is not None:
            check_axes("negative", self.negative, "B T D", B=size["B"], T=size["T"], D=size["D"])
        if self.pooled is not None:
            check_axes("pooled", self.pooled, "B M P", B=size["B"], M=size["M"])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Composition:
    """Prompts of several parts, ready for `composed` and a stock pipeline.

    variants: one, or where a prompt changes over the steps all that `timeline` names, of one shape.
    """

    variants: tuple[Composed, ...]
    timeline: Timeline | None = None
    plans: tuple[PromptPlan, ...]  # of each prompt
    negative_plans: tuple[PromptPlan, ...]
    findings: tuple[PlacedFinding, ...] = ()
    family: str
    dialect: str
    regions: tuple[Region, ...] = ()  # whose prompts come after the one of `plans`

    @property
    def parts(self) -> Tensor:
        """(B, M, T, D), of the first step."""
        return self.variants[0].parts

    @property
    def weights(self) -> Tensor:
        """(B, M) float32, of the first step."""
        return self.variants[0].weights

    @property
    def kwargs(self) -> dict[str, Tensor]:
        """The tensors for the pipeline's call while `composed` is open: the first part of each prompt."""
        first = self.variants[0]
        named = {
            "prompt_embeds": first.parts[:, 0],
            "negative_prompt_embeds": first.negative,
            "pooled_prompt_embeds": None if first.pooled is None else first.pooled[:, 0],
            "negative_pooled_prompt_embeds": first.negative_pooled,
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def combine(unconditional: Tensor, parts: Tensor, weights: Tensor, owners: Tensor) -> Tensor:
    """u + Σ wᵢ (cᵢ − u) for each of B pictures.

    unconditional: (B, …), the denoiser's output for the negative prompts.   parts: (R, …), its output for the parts.
    weights: (R) of each part.   owners: (R) int64, the picture of each part.   All on one device.
    Returns (B, …) in the dtype of the parts, computed in float32 or wider. A single part of weight 1 comes back as it is.
    """
    wide = torch.promote_types(parts.dtype, torch.float32)
    shape, w = (-1, *[1] * (parts.ndim - 1)), weights.to(parts.device, wide)
    totals = torch.zeros(len(unconditional), dtype=wide, device=parts.device).index_add(0, owners, w)
    rest = (1 - totals).view(shape) * unconditional.to(wide)
    return rest.index_add(0, owners, parts.to(wide) * w.view(shape)).to(parts.dtype)


def combine_in_place(
    parts: Tensor, weights: Tensor, owners: Tensor, count: int, unconditional: Tensor | None = None
) -> Tensor:
    """Σ wᵢ cᵢ for each of `count` pictures, with weights that differ from place to place; the rest is u, where it is given.

    parts: (R, C, h, w), or (R, S, C) of packed latents.   weights: (R, 1, h, w), or (R, S, 1).   owners, unconditional: as
    in `combine`.   Returns (count, …) in the dtype of the parts. A part of weight 1 comes back as it is where it has it.
    """
    wide = torch.promote_types(parts.dtype, torch.float32)
    w = weights.to(parts.device, wide)
    mixed = torch.zeros(count, *parts.shape[1:], dtype=wide, device=parts.device)
    if unconditional is not None:
        totals = torch.zeros(count, *w.shape[1:], dtype=wide, device=parts.device).index_add(0, owners, w)
        mixed = (1 - totals) * unconditional.to(wide)
    return mixed.index_add(0, owners, parts.to(wide) * w).to(parts.dtype)


@contextmanager
def composed(pipe: Any, composition: Composition) -> Iterator[None]:
    """While open, one call of the pipeline with `composition.kwargs` draws all parts together.

    pipe: of Stable Diffusion 1, 2 or XL, in any of its uses, or 3; for regions without AND also Flux. Any other reader of the
    text (a ControlNet; an IP-adapter's pictures are none) gets the first part, the base prompt of regions. A batch of the
    denoiser is M + 1 rows a picture, parts of weight 0 left out.
    Raises ConfigError for a pipeline whose denoiser reads the two sides of guidance one after the other, or three of them
    (InstructPix2Pix, perturbed-attention guidance).
    """
    if not isinstance(composition, Composition):
        raise ConfigError(
            f"composed takes what conditioner.compose(…) or .regions(…) gives, not a {type(composition).__name__}"
        )
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    one_side = all(each.closed for each in composition.variants)
    if not isinstance(denoiser, nn.Module) or not (one_side or hasattr(type(pipe), "do_classifier_free_guidance")):
        raise ConfigError(
            f"{type(pipe).__name__} has no denoiser that reads prompt and negative prompt in one batch, "
            "which the composition of AND needs; use a pipeline of Stable Diffusion 1, 2, XL or 3"
        )
    refuse_three_sides(pipe, "the composition of AND")
    running = _Running(pipe, composition)
    handles = [
        denoiser.register_forward_pre_hook(running.before, with_kwargs=True),
        denoiser.register_forward_hook(running.after, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def refuse_three_sides(pipe: Any, what: str) -> None:
    """Raise ConfigError for a pipeline that guides by three sides. what: is done to its denoiser."""
    if any(hasattr(type(pipe), name) for name in _THREE):
        raise ConfigError(f"{type(pipe).__name__} guides by three sides, and {what} knows two; use a pipeline of two")


@dataclass(slots=True, eq=False)
class _Running:
    """The denoiser's input with all parts, and its output put together again, call by call."""

    pipe: Any
    composition: Composition
    call: int = 0
    batch: _Rows | None = field(default=None)

    def before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        states = kwargs.get("encoder_hidden_states")
        self.batch = None
        if not isinstance(states, Tensor) or kwargs.get("skip_layers") is not None:  # SD3's further call, without text
            return args, kwargs
        variant = self._variant()
        rows = _Rows.of(variant, len(states), guided=bool(getattr(self.pipe, "do_classifier_free_guidance", False)))
        if not self._is_called(states[-rows.pictures :], rows.repeats):
            return args, kwargs
        self.batch = rows
        named = {
            name: each if name in _TEXT else rows.expand(each) for name, each in kwargs.items() if name not in _ALIKE
        }
        named |= {name: kwargs[name] for name in _ALIKE if name in kwargs}
        named["encoder_hidden_states"] = rows.text(variant.negative, variant.parts, states)
        if (added := kwargs.get("added_cond_kwargs")) is not None and variant.pooled is not None:
            text = rows.text(variant.negative_pooled, variant.pooled, added["text_embeds"])
            named["added_cond_kwargs"] = {**rows.expand(added), "text_embeds": text}
        if (pooled := kwargs.get("pooled_projections")) is not None:
            named["pooled_projections"] = rows.text(variant.negative_pooled, present(variant.pooled), pooled)
        self.call += 1
        return tuple(rows.expand(each) for each in args), named

    def after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if self.batch is None:
            return None
        found = output[0] if isinstance(output, tuple) else output.sample
        joined = self.batch.joined(found, kwargs.get("img_ids"))
        return (joined, *output[1:]) if isinstance(output, tuple) else replace(output, sample=joined)

    def _is_called(self, states: Tensor, repeats: int) -> bool:
        """Return False for a call of Flux's further side, which is the user's own.

        Raises ConfigError where the pipeline was called with another prompt than the composition gives it.
        """
        alone = not hasattr(type(self.pipe), "do_classifier_free_guidance")
        if self.call and not alone:
            return True
        first = self.composition.variants[0].parts[:, 0].repeat_interleave(repeats, dim=0)
        same = states.shape == first.shape and torch.equal(states, first.to(states))
        if not same and self.call == 0:
            raise ConfigError(
                "the pipeline was called with another prompt while a composition is open; "
                "call it with **composition.kwargs, and with other prompts outside of the block"
            )
        return same

    def _variant(self) -> Composed:
        timeline = self.composition.timeline
        if timeline is None:
            return self.composition.variants[0]
        if self.call == 0:
            check_steps(timeline, self.pipe)
        return self.composition.variants[timeline.variant(step_of_call(self.call, self.pipe.scheduler))]


_THREE = ("image_guidance_scale", "do_perturbed_attention_guidance")  # of pipelines that guide by three sides
_TEXT = ("encoder_hidden_states", "pooled_projections")
_ALIKE = ("cross_attention_kwargs", "joint_attention_kwargs", "return_dict", "txt_ids", "img_ids")  # have no rows


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The layout of a denoiser's batch: the pictures' negative sides, then all parts of any weight.

    batch: the pipeline's own rows.   pictures: of them, one side.   unconditional: their negative sides have rows, for the
    pipeline's guidance or for the parts.   owners: (R) the picture of each part.   chosen: (R) its place among all B·M parts.
    """

    batch: int
    pictures: int
    guided: bool
    unconditional: bool
    owners: Tensor
    chosen: Tensor
    weights: Tensor
    repeats: int
    areas: Areas | None
    closed: bool

    @classmethod
    def of(cls, variant: Composed, batch: int, *, guided: bool) -> _Rows:
        prompts, parts = variant.weights.shape
        pictures = batch // 2 if guided else batch
        if pictures % prompts or batch != pictures * (1 + guided):
            raise ConfigError(
                f"the denoiser is given {batch} rows, for {prompts} composed prompts; expected a multiple"
            )
        repeats = pictures // prompts
        weights = variant.weights.repeat_interleave(repeats, dim=0)  # (pictures, M)
        owners, part = weights.nonzero(as_tuple=True)
        return cls(
            batch=batch,
            pictures=pictures,
            guided=guided,
            unconditional=guided or not variant.closed,
            owners=owners,
            chosen=(owners // repeats) * parts + part,
            weights=weights[owners, part],
            repeats=repeats,
            areas=variant.areas,
            closed=variant.closed,
        )

    def expand(self, value: Any) -> Any:
        """A value with a row for each of the pipeline's, with one for each of the denoiser's batch."""
        if isinstance(value, Tensor):
            if value.ndim == 0 or len(value) != self.batch:
                return value
            first = torch.arange(self.pictures if self.unconditional else 0)
            index = torch.cat([first, self.owners + self.pictures * self.guided])
            return value[index.to(value.device)]
        if isinstance(value, (list, tuple)):
            return type(value)(self.expand(each) for each in value)
        return {name: self.expand(each) for name, each in value.items()} if isinstance(value, dict) else value

    def text(self, negative: Tensor | None, parts: Tensor, like: Tensor) -> Tensor:
        """The rows of texts: of the negative sides, where they have rows, then of the parts."""
        chosen = parts.flatten(0, 1)[self.chosen.to(parts.device)]
        if not self.unconditional:
            return chosen.to(like)
        return torch.cat([present(negative).repeat_interleave(self.repeats, dim=0), chosen]).to(like)

    def joined(self, output: Tensor, positions: Tensor | None) -> Tensor:
        """The output for the pipeline, with its own number of rows. positions: (S, 3), of packed latents."""
        first = self.pictures if self.unconditional else 0
        unconditional, parts = output[:first], output[first:]
        owners = self.owners.to(output.device)
        if self.areas is None:
            mixed = combine(unconditional, parts, self.weights.to(output.device), owners)
        else:
            weights = self.weights.view(-1, *[1] * (parts.ndim - 1)) * self._areas(parts, positions)
            rest = None if self.closed else unconditional
            mixed = combine_in_place(parts, weights, owners, self.pictures, rest)
        return torch.cat([unconditional, mixed]) if self.guided else mixed

    def _areas(self, parts: Tensor, positions: Tensor | None) -> Tensor:
        """The share that each part has of each place: (R, 1, h, w), or (R, S, 1) of packed latents."""
        areas = self.areas
        assert areas is not None
        part = self.chosen % areas.parts
        if parts.ndim == 4:
            return areas.at(parts.shape[-2], parts.shape[-1])[part][:, None]
        rows, columns = present(positions)[..., 1:].reshape(-1, 2).round().long().cpu().unbind(dim=-1)
        whole = areas.at(int(rows.max()) + 1, int(columns.max()) + 1)
        return whole[:, rows, columns][part][..., None]


def present(tensor: Tensor | None) -> Tensor:
    """A tensor that is there whenever the other side's is."""
    assert tensor is not None
    return tensor
