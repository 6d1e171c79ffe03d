"""Steered pictures that keep everything else: two runs of the pipeline, and what no phrase acts on is the first one's.

A denoiser sees the whole picture, so taking one thing out moves others a little from step to step. The first run draws the
prompts as they are written; in the second, after each step, latents where no steered phrase acts are those of the first run
(blended latent diffusion, Avrahami et al. 2022), and so are the pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from clipcond.diffusion.counterfactual.denoiser import SteeredRun, steered
from clipcond.diffusion.counterfactual.steering import Steering
from clipcond.errors import ConfigError

_BY_PIXELS = ("pil", "np", "pt")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SteeredPictures:
    """Pictures, and the same prompts drawn without steering from the same noise.

    images, before: as the pipeline gives them for `output_type`.   places: where phrases act, (N, H, W) float32 from 0 to 1 for
    each pixel; None where none was steered. Where it is 0 the pixels are those of `before`.
    """

    images: Any
    before: Any
    places: Tensor | None


@torch.no_grad()
def draw_steered(
    pipe: Any,
    steering: Steering,
    *,
    call: Callable[..., Any] | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    output_type: str = "pil",
    callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
    on_step: Callable[[], object] = lambda: None,
    **options: Any,
) -> SteeredPictures:
    """Draw the prompts of a steering; one run where nothing is steered, otherwise two.

    call: what draws, the pipeline itself if not given.   generator: of the noise, as for the pipeline; both runs have the
    same.   output_type: `pil`, `np`, `pt` or `latent`.   callback_on_step_end: called in the last run.   on_step: called after
    each step of either run.   options: of the pipeline's call, its prompts left out.
    Raises ConfigError for another output_type.
    """
    if output_type not in (*_BY_PIXELS, "latent"):
        raise ConfigError(f"output_type is {output_type!r}, expected one of {', '.join(_BY_PIXELS)} or latent")
    call = call or pipe
    asked = {**steering.kwargs, **options, "output_type": "np" if output_type in _BY_PIXELS else output_type}
    own = _generators(generator)
    track: list[Tensor] = []

    def record(pipe: Any, step: int, time: Any, state: dict[str, Any]) -> dict[str, Any]:
        track.append(state["latents"].clone())
        on_step()
        return state

    first = record if steering.phrases else _watched(callback_on_step_end, on_step)
    with steered(pipe, steering.unsteered()):
        before = call(**asked, generator=_clones(own), callback_on_step_end=first).images
    if not steering.phrases:
        return SteeredPictures(images=_as_asked(pipe, before, output_type), before=None, places=None)
    with steered(pipe, steering) as run:

        def keep(pipe: Any, step: int, time: Any, state: dict[str, Any]) -> dict[str, Any]:
            state = _watched(callback_on_step_end, on_step)(pipe, step, time, state)
            return state | {"latents": _kept(track[step], state["latents"], run)}

        after = call(**asked, generator=own, callback_on_step_end=keep).images
    places = run.places
    assert places is not None
    if output_type == "latent":
        return SteeredPictures(images=after, before=before, places=None)
    spread = _over_pixels(places, before.shape[1:3])
    share = spread.numpy()[..., None]
    images = np.where(share > 0, before + share * (after - before), before)
    return SteeredPictures(
        images=_as_asked(pipe, images, output_type), before=_as_asked(pipe, before, output_type), places=spread
    )


def _watched(callback: Callable[..., dict[str, Any]] | None, on_step: Callable[[], object]) -> Callable[..., Any]:
    def after(pipe: Any, step: int, time: Any, state: dict[str, Any]) -> dict[str, Any]:
        on_step()
        return state if callback is None else callback(pipe, step, time, state)

    return after


def _kept(before: Tensor, latents: Tensor, run: SteeredRun) -> Tensor:
    """Latents of the first run where no phrase acts."""
    places = run.places
    if places is None:  # a step before the first phrase
        return before
    share = places.to(latents.device, torch.float32)
    return (before.float() + share * (latents.float() - before.float())).to(latents.dtype)


def _over_pixels(places: Tensor, size: Sequence[int]) -> Tensor:
    """(N, H, W) on the CPU: places spread over the pixels; half a place counts as a whole one, for the autoencoder draws over
    its border.

    places: (N, 1, h, w), or (N, h·w, 1) of patches in a row.
    """
    if places.ndim == 3:
        rows = round((places.shape[1] * size[0] / size[1]) ** 0.5)
        places = places.reshape(len(places), 1, rows, -1)
    spread = interpolate(places.float().cpu(), size=tuple(size), mode="bilinear", align_corners=False)
    return (2 * spread[:, 0]).clamp(max=1)


def _generators(given: torch.Generator | Sequence[torch.Generator] | None) -> Any:
    """The generators of a run; without any, one that the global generator seeds."""
    if given is not None:
        return given
    return torch.Generator("cpu").manual_seed(int(torch.randint(2**62, (1,))))


def _clones(given: torch.Generator | Sequence[torch.Generator]) -> Any:
    """Generators in the same states."""
    if isinstance(given, torch.Generator):
        return torch.Generator(given.device).set_state(given.get_state())
    return [_clones(each) for each in given]


def _as_asked(pipe: Any, images: Any, output_type: str) -> Any:
    if output_type == "pil":
        return pipe.image_processor.numpy_to_pil(images)
    return pipe.image_processor.numpy_to_pt(images) if output_type == "pt" else images
