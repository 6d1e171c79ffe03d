"""Stable Diffusion whose prompts may be several, joined by A1111's AND, as a diffusers custom pipeline.

    file = ".../clipcond_composition.py"
    pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=file, trust_remote_code=True)
    pipe("a red circle AND a blue square :0.8", negative_prompt="…").images[0]

The safer equal, without remote code, which works with Stable Diffusion XL and 3 as well:

    parts = clipcond.Conditioner.from_pipeline(pipe).compose(prompt)
    with composed(pipe, parts):  # of clipcond.diffusion.compose_denoiser
        pipe(**parts.kwargs)
"""

import torch
from diffusers import StableDiffusionPipeline

from clipcond.diffusion.compose_denoiser import composed
from clipcond.diffusion.conditioner import composition_of


class ClipCondCompositionPipeline(StableDiffusionPipeline):
    """StableDiffusionPipeline that reads A1111's syntax and composes the parts of a prompt in what the U-Net says."""

    @torch.no_grad()
    def __call__(
        self,
        prompt=None,
        height=None,
        width=None,
        num_inference_steps=50,
        *,
        negative_prompt=None,
        prompt_embeds=None,
        negative_prompt_embeds=None,
        clip_skip=None,
        dialect="a1111",
        weighting=None,
        **options,
    ):
        """As StableDiffusionPipeline, with `dialect` and `weighting`; options beyond the number of steps go by name.

        Parts may change over the steps (`[from:to:when]`). Given embeddings are left to the stock pipeline.
        """
        sizes = {"height": height, "width": width, "num_inference_steps": num_inference_steps}
        if prompt is None or prompt_embeds is not None or negative_prompt_embeds is not None:
            return super().__call__(
                prompt,
                negative_prompt=negative_prompt,
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                clip_skip=clip_skip,
                **sizes,
                **options,
            )
        parts = composition_of(
            self,
            prompt,
            negative_prompt,
            dialect=dialect,
            weighting=weighting,
            clip_skip=clip_skip or 0,
            steps=num_inference_steps,
        )
        with composed(self, parts):
            return super().__call__(**parts.kwargs, **sizes, **options)
