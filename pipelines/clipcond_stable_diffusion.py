"""Stable Diffusion that reads the whole prompt, as a diffusers custom pipeline.

    file = ".../clipcond_stable_diffusion.py"
    pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=file, trust_remote_code=True)
    pipe("a prompt of any length", negative_prompt="…").images[0]

The safer equal, without remote code: `pipe(**clipcond.Conditioner.from_pipeline(pipe)(prompt).kwargs)`.
"""

import torch
from diffusers import StableDiffusionPipeline

from clipcond.diffusion.conditioner import condition


class ClipCondStableDiffusionPipeline(StableDiffusionPipeline):
    """StableDiffusionPipeline whose prompts may have any number of tokens, in any dialect that clipcond reads."""

    @torch.no_grad()
    def __call__(
        self,
        prompt=None,
        height=None,
        width=None,
        *,
        negative_prompt=None,
        prompt_embeds=None,
        negative_prompt_embeds=None,
        clip_skip=None,
        dialect="plain",
        **options,
    ):
        """As StableDiffusionPipeline, with `dialect`; options beyond height and width go by name.

        Given embeddings, and one side of them, are left to the stock pipeline.
        """
        if prompt is not None and prompt_embeds is None and negative_prompt_embeds is None:
            conditioning = condition(self, prompt, negative_prompt, dialect=dialect, clip_skip=clip_skip or 0)
            return super().__call__(height=height, width=width, **conditioning.kwargs, **options)
        return super().__call__(
            prompt,
            height,
            width,
            negative_prompt=negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            clip_skip=clip_skip,
            **options,
        )
