"""Stable Diffusion whose weights act in the picture, each phrase's where it acts, as a diffusers custom pipeline.

    file = ".../clipcond_counterfactual.py"
    pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=file, trust_remote_code=True)
    pipe("a (red circle:0) beside a (blue star:1.5)").images[0]
    pipe("a red circle beside a blue star", replace={"red circle": "white ring"}).images[0]

The safer equal, without remote code, which works with Stable Diffusion XL, 3 and Flux as well:

    steering = clipcond.Conditioner.from_pipeline(pipe).counterfactual(prompt, dialect="a1111")
    clipcond.draw_steered(pipe, steering).images[0]
"""

import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput

from clipcond.diffusion.conditioner import counterfactual_of
from clipcond.diffusion.counterfactual.drawing import draw_steered


class ClipCondCounterfactualPipeline(StableDiffusionPipeline):
    """StableDiffusionPipeline whose weights take out, weaken and strengthen phrases, everything else as without them."""

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
        replace=None,
        every=1,
        **options,
    ):
        """As StableDiffusionPipeline, with `dialect`, `replace` and `every`; options beyond the number of steps go by name.

        Draws twice where a phrase has a weight or is replaced. Given embeddings are left to the stock pipeline.
        """
        options |= {"height": height, "width": width, "num_inference_steps": num_inference_steps}
        if prompt is None or prompt_embeds is not None or negative_prompt_embeds is not None:
            return super().__call__(
                prompt,
                negative_prompt=negative_prompt,
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                clip_skip=clip_skip,
                **options,
            )
        steering = counterfactual_of(
            self,
            prompt,
            negative_prompt,
            dialect=dialect,
            replace=replace,
            every=every,
            clip_skip=clip_skip or 0,
            steps=num_inference_steps,
        )
        drawn = draw_steered(self, steering, call=super().__call__, **options)
        return StableDiffusionPipelineOutput(images=drawn.images, nsfw_content_detected=None)
