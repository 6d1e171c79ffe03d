"""Pictures from a prompt, each with its own seed, so that any one of them can be made again alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from PIL import Image

from clipcond.diffusion.adapters import check_adapters_finite
from clipcond.diffusion.compose_denoiser import Composition, composed
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.conditioning import Conditioning
from clipcond.diffusion.counterfactual.drawing import draw_steered
from clipcond.diffusion.counterfactual.steering import Steering
from clipcond.diffusion.pipeline_shapes import repeated_rows
from clipcond.diffusion.pipelines import advice
from clipcond.errors import ConfigError, ModelError

Through = Literal["conditioner", "stock"]
LARGEST_SEED = 2**63 - 1  # of the last picture; torch takes more, but few programs that read seeds do


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture and the seed that made it."""

    image: Image.Image
    seed: int
    index: int


def generate(
    pipe: Any,
    prompt: str = "",
    *,
    negative_prompt: str = "",
    conditioning: Conditioning | Composition | Steering | None = None,
    count: int = 8,
    steps: int | None = None,
    guidance_scale: float | None = None,
    seed: int = 0,
    dialect: str = "plain",
    clip_skip: int = 0,
    through: Through = "conditioner",
    batch_size: int = 8,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[Picture]:
    """Make `count` pictures, in order, a batch at a time.

    pipe: a text-to-image pipeline that the Conditioner supports.   steps, guidance_scale: what the pipeline's folder
    advises if not given (20 and 7.5 where it says nothing).   seed: picture i starts from noise of seed + i, drawn on
    the CPU, whatever the batch size and the device.   through: `conditioner` reads the whole prompt in `dialect`;
    `stock` leaves it to the pipeline, which reads 75 tokens.   conditioning: of one prompt, made or loaded before, in
    place of `prompt`, `negative_prompt`, `dialect` and `clip_skip`.   on_step: called after each step with the number of
    pictures that it moved on; a steering draws each twice.
    The same call gives the same bytes on the same machine; another batch size the same pictures up to rounding.
    Raises ConfigError for numbers out of range, ModelError for a pipeline that is not supported or draws from a picture,
    and for an adapter with a number that is not finite.
    """
    call = prepared(
        pipe,
        prompt,
        negative_prompt=negative_prompt,
        conditioning=conditioning,
        count=count,
        steps=steps,
        guidance_scale=guidance_scale,
        seed=seed,
        dialect=dialect,
        clip_skip=clip_skip,
        through=through,
        batch_size=batch_size,
    )
    return _batches(pipe, call, count, seed, batch_size, on_step)


# the arguments of a call that draws pictures of a text in one loop
_TAKEN = ("num_inference_steps", "guidance_scale", "num_images_per_prompt", "generator", "callback_on_step_end")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedCall:
    """The conditioning of one prompt, None where the pipeline reads it, and the arguments of the pipeline's call."""

    conditioning: Conditioning | Composition | Steering | None
    arguments: Mapping[str, Any]

    @property
    def callback(self) -> Callable[..., dict[str, Any]] | None:
        """The callback of a prompt that changes over the steps."""
        return self.conditioning.callback if isinstance(self.conditioning, Conditioning) else None

    def rows(self, count: int) -> dict[str, Any]:
        """The arguments for so many pictures.

        Rows are repeated here: the call of SD3 repeats prompts, and not their embeddings.
        """
        repeated = {
            name: repeated_rows(name, each, count) if isinstance(each, torch.Tensor) else each
            for name, each in self.arguments.items()
        }
        inputs = getattr(self.callback, "tensor_inputs", None)
        taken = {} if inputs is None else {"callback_on_step_end_tensor_inputs": inputs}
        return {**repeated, **taken, "num_images_per_prompt": count if self.conditioning is None else 1}

    def open(self, pipe: Any) -> AbstractContextManager[None]:
        """The context that must be open while the pipeline runs."""
        return composed(pipe, self.conditioning) if isinstance(self.conditioning, Composition) else nullcontext()


def prepared(
    pipe: Any,
    prompt: str,
    *,
    negative_prompt: str,
    conditioning: Conditioning | Composition | Steering | None,
    count: int,
    steps: int | None,
    guidance_scale: float | None,
    seed: int,
    dialect: str,
    clip_skip: int,
    through: Through,
    batch_size: int,
) -> PreparedCall:
    """Check the settings of `generate`, which are told there, and condition the pipeline."""
    advised = advice(pipe)
    steps = advised.steps if steps is None else steps
    scale = advised.guidance_scale if guidance_scale is None else guidance_scale
    _check_numbers(count=count, steps=steps, batch_size=batch_size, seed=seed)
    if through not in ("conditioner", "stock"):
        raise ConfigError(f"through is {through!r}, expected 'conditioner' or 'stock'")
    if conditioning is not None and len(conditioning.plans) != 1:
        raise ConfigError(f"the conditioning is of {len(conditioning.plans)} prompts; give one of one prompt")
    rows = 1 if conditioning is None else _rows_of(conditioning)
    if rows != 1:
        raise ConfigError(
            f"the conditioning has {rows} rows for its prompt, expected 1; make it without num_images_per_prompt, and give count"
        )
    _check_draws_from_text(pipe)
    check_adapters_finite(pipe)
    if through == "stock":
        arguments: Mapping[str, Any] = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            **_own_skip(pipe, clip_skip),
        }
    else:
        conditioning = conditioning or Conditioner.from_pipeline(pipe)(
            prompt, negative_prompt, dialect=dialect, clip_skip=clip_skip, steps=steps
        )
        arguments = conditioning.kwargs
    options = {"num_inference_steps": steps, "guidance_scale": scale}
    if advised.guidance_rescale:
        options["guidance_rescale"] = advised.guidance_rescale
    return PreparedCall(conditioning=conditioning, arguments={**arguments, **options})


def _rows_of(conditioning: Conditioning | Composition | Steering) -> int:
    if isinstance(conditioning, Conditioning):  # whose arguments may have other names
        return len(conditioning.prompt_embeds)
    return len(conditioning.kwargs["prompt_embeds"])


def _check_numbers(*, count: int, steps: int, batch_size: int, seed: int) -> None:
    for name, value, least in (
        ("count", count, 1),
        ("steps", steps, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ConfigError(f"{name} is {value}, expected {least} or more")
    if seed + count - 1 > LARGEST_SEED:
        raise ConfigError(f"seed is {seed}; the last of {count} would have one above {LARGEST_SEED}")


def _check_draws_from_text(pipe: Any) -> None:
    """Raise ModelError for a pipeline that draws from a picture, or whose call is another than that of pictures."""
    takes = inspect.signature(type(pipe).__call__).parameters
    missing = next((name for name in _TAKEN if name not in takes), None)
    if missing is not None and not any(each.kind is each.VAR_KEYWORD for each in takes.values()):
        raise ModelError(
            f"the call of {type(pipe).__name__} takes no {missing}; in Python give it a Conditioner's kwargs"
        )
    image = next((name for name in ("image", "control_image") if name in takes), None)
    if image is not None and not type(pipe).__name__.startswith("FluxKontext"):  # which may do without
        raise ModelError(
            f"{type(pipe).__name__} draws from a picture ({image}), expected a text-to-image pipeline; in Python give "
            "its call a Conditioner's kwargs and the picture"
        )


def _own_skip(pipe: Any, clip_skip: int) -> dict[str, int]:
    """The pipeline's own argument for clip skip. Raises ConfigError where it has none, or none that works here."""
    if not clip_skip:
        return {}
    name = type(pipe).__name__
    if "clip_skip" not in inspect.signature(type(pipe).__call__).parameters:
        raise ConfigError(f"clip_skip is {clip_skip}, but the call of {name} takes none; leave it out")
    if not hasattr(pipe, "text_encoder_2") and not hasattr(pipe.text_encoder, "text_model"):
        raise ConfigError(
            f"clip_skip is {clip_skip}, but that of {name} does not work with this release of transformers; "
            "leave the prompt to clipcond"
        )
    return {"clip_skip": clip_skip}


def generators(seed: int, count: int) -> list[torch.Generator]:
    """The generator of each picture, on the CPU."""
    return [torch.Generator("cpu").manual_seed(seed + number) for number in range(count)]


def _batches(
    pipe: Any, call: PreparedCall, count: int, seed: int, batch_size: int, on_step: Callable[[int], None] | None
) -> Iterator[Picture]:
    callback = call.callback
    for first in range(0, count, batch_size):
        size = min(batch_size, count - first)

        def after(pipe: Any, step: int, time: Any, state: dict[str, Any], moved: int = size) -> dict[str, Any]:
            if on_step is not None:
                on_step(moved)
            return state if callback is None else callback(pipe, step, time, state)

        how: dict[str, Any] = {"generator": generators(seed + first, size)}
        if isinstance(call.conditioning, Steering):
            moved_on = partial(on_step, size) if on_step is not None else _ignore
            images = draw_steered(pipe, call.conditioning, **call.rows(size), **how, on_step=moved_on).images
        else:
            with call.open(pipe):
                images = pipe(**call.rows(size), **how, callback_on_step_end=after).images
        for number, image in enumerate(images):
            yield Picture(image, seed + first + number, first + number)


def _ignore() -> None:
    """Of a step that nobody waits for."""


def settings_of(
    pipe: Any, picture: Picture, *, steps: int | None, guidance_scale: float | None, model: str
) -> dict[str, object]:
    """The settings of a picture in the words of the `parameters` text, for `write_picture`."""
    advised = advice(pipe)
    return {
        "Steps": advised.steps if steps is None else steps,
        "Sampler": type(pipe.scheduler).__name__.removesuffix("Scheduler"),
        "CFG scale": f"{advised.guidance_scale if guidance_scale is None else guidance_scale:g}",
        "Seed": picture.seed,
        "Size": f"{picture.image.width}x{picture.image.height}",
        "Model": model,
    }
