"""`clipcond.replace`: a picture of a prompt, and the same picture with something else in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.counterfactual.drawing import draw_steered
from clipcond.diffusion.counterfactual.replaced_prompts import replaced_text
from clipcond.diffusion.pipelines import advice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replaced:
    """A picture after the replacement and before.

    prompt: after it.   places: (H, W) float32, where the words act; where it is 0 the pixels of both are the same.
    """

    image: Image.Image
    before: Image.Image
    prompt: str
    places: Tensor


def replace(
    pipe: Any,
    prompt: str,
    phrases: Mapping[str, str],
    negative_prompt: str | None = None,
    *,
    seed: int = 0,
    steps: int | None = None,
    guidance_scale: float | None = None,
    conditioner: Conditioner | None = None,
    **settings: Any,
) -> Replaced:
    """Draw a prompt with other words in place of some phrases, and everything else as in the picture of the prompt itself.

    pipe: a text-to-image pipeline that the Conditioner supports.   phrases: new words by the phrases that they take the place of,
    as in {"red circle": "blue star"}; each wherever the prompt has it, in any case.   seed, steps, guidance_scale: as for
    `generate`.   settings: of `Conditioner.counterfactual`, such as `dialect`.
    Both pictures are drawn, each of them in a run of the pipeline. Raises ConfigError for a phrase that the prompt has not.
    """
    advised = advice(pipe)
    steps = advised.steps if steps is None else steps
    conditioner = conditioner or Conditioner.from_pipeline(pipe)
    steering = conditioner.counterfactual(prompt, negative_prompt, replace=phrases, steps=steps, **settings)
    drawn = draw_steered(
        pipe,
        steering,
        generator=torch.Generator("cpu").manual_seed(seed),
        num_inference_steps=steps,
        guidance_scale=advised.guidance_scale if guidance_scale is None else guidance_scale,
    )
    (image,), (before,) = drawn.images, drawn.before
    assert drawn.places is not None
    return Replaced(image=image, before=before, prompt=replaced_text(prompt, phrases), places=drawn.places[0])
