"""The arguments of a tiny pipeline's call beside its text: two steps of a picture of 16, and the pictures that it asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

SIZE = 16
PROMPT, NEGATIVE = "a red fox in the snow, soft light", "blurry, grey"
Value = Callable[[], Any]


def picture(size: int = SIZE) -> Any:
    """A picture of two colours."""
    from PIL import Image

    made = Image.new("RGB", (size, size), "red")
    made.paste("blue", (0, 0, size // 2, size))
    return made


def mask(size: int = SIZE) -> Any:
    """A mask of the lower half."""
    from PIL import Image

    made = Image.new("L", (size, size), 0)
    made.paste(255, (0, size // 2, size, size))
    return made


def frames() -> list[Any]:
    """A video of two frames."""
    return [picture(), picture()]


def _tensor(*shape: int) -> Value:
    def make() -> Any:
        import torch

        return torch.randn(shape, generator=torch.Generator().manual_seed(2))

    return make


def _latent_mask() -> Any:
    import torch

    return torch.ones(1, 1, SIZE // 2, SIZE // 2)


def _sized(size: int) -> dict[str, Value]:
    return {"height": lambda: size, "width": lambda: size, "image": lambda: picture(size)}


# by the name of an argument; only those that a call takes are given
ARGUMENTS: Mapping[str, Value] = {
    "height": lambda: SIZE,
    "width": lambda: SIZE,
    "num_inference_steps": lambda: 2,
    "output_type": lambda: "np",
    "image": picture,
    "control_image": picture,
    "mask_image": mask,
    "control_mask": mask,
    "video": frames,
    "conditioning_frames": frames,
    "num_frames": lambda: 2,
    "decode_chunk_size": lambda: 2,
    "true_cfg_scale": lambda: 2.0,
    "strength": lambda: 1.0,
    "image_embeddings": _tensor(1, 16, 1, 1),  # of Stable Cascade's prior
    "gligen_phrases": lambda: ["a bird"],
    "gligen_boxes": lambda: [[0.1, 0.1, 0.6, 0.6]],
    "gligen_images": lambda: [picture()],
    "token_indices": lambda: [2],
    "attn_res": lambda: (4, 4),
    "max_iter_to_alter": lambda: 1,
    "thresholds": dict,
    "source_prompt": lambda: "a blue bird",
    "control_mode": lambda: 0,
    "prior_num_inference_steps": lambda: 2,
    "decoder_num_inference_steps": lambda: 2,
    "super_res_num_inference_steps": lambda: 2,
    "sample_audio": lambda: False,
}
_VIDEO: Mapping[str, Value] = {"num_frames": lambda: 5, "output_type": lambda: "latent"}
_WHOLE: Mapping[str, Value] = {"_auto_resize": lambda: False, "max_area": lambda: SIZE**2}
_EDITS: Mapping[str, Value] = {
    "edit_guidance_scale": lambda: 5.0,
    "edit_threshold": lambda: 0.5,
    "use_intersect_mask": lambda: False,  # a mask by words needs them
}
# where a class wants others; None leaves an argument out
OWN: Mapping[str, Mapping[str, Value | None]] = {
    "CycleDiffusionPipeline": {"num_inference_steps": lambda: 4, "strength": lambda: 0.5},
    "FluxKontextInpaintPipeline": _WHOLE,
    "FluxKontextPipeline": _WHOLE,
    "HunyuanSkyreelsImageToVideoPipeline": _VIDEO,
    "HunyuanVideoFramepackPipeline": {**_VIDEO, **_sized(64), "latent_window_size": lambda: 3},
    "HunyuanVideoImageToVideoPipeline": _VIDEO,
    "HunyuanVideoPipeline": _VIDEO,
    "Kandinsky5I2IPipeline": _sized(32),
    "I2VGenXLPipeline": {"clip_skip": lambda: None, "image": lambda: picture(32)},
    "Kandinsky5I2VPipeline": {**_VIDEO, "num_frames": lambda: 21},
    "Kandinsky5T2VPipeline": _VIDEO,
    "Kandinsky6TI2VAPipeline": {**_VIDEO, "image": None},
    "StableDiffusionDiffEditPipeline": {"mask_image": lambda: _latent_mask()},
    "StableDiffusionLatentUpscalePipeline": {"image": _tensor(1, 4, 8, 8)},
    "LEditsPPPipelineStableDiffusion": _EDITS,
    "LEditsPPPipelineStableDiffusionXL": _EDITS,
    "StableCascadeCombinedPipeline": {"height": lambda: 128, "width": lambda: 128},
    "StableCascadePriorPipeline": {"height": lambda: 128, "width": lambda: 128},
    "WuerstchenPriorPipeline": {"height": lambda: 64, "width": lambda: 64},
    "TextToVideoZeroSDXLPipeline": {"num_inference_steps": lambda: 4, "t0": lambda: 1, "t1": lambda: 2},
}
# a prompt that a class asks for beside embeds, which it only counts
COUNTED = ("CycleDiffusionPipeline",)


def _inverted(pipe: Any) -> dict[str, Any]:
    found = pipe.invert(prompt="a bird", image=picture(), num_inference_steps=2, inpaint_strength=1.0)
    return {"image_latents": found.latents, "inpaint_strength": 1.0}


def _edited(pipe: Any) -> dict[str, Any]:
    import torch

    pipe.invert(image=picture(32), num_inversion_steps=4, skip=0.1, generator=torch.Generator().manual_seed(3))
    pipe.batch_size = 1
    return {}


def _directions(pipe: Any) -> dict[str, Any]:
    return {"source_embeds": pipe.get_embeds(["a bird"]), "target_embeds": pipe.get_embeds(["a fox"])}


# what is done with a pipeline before each call; the arguments that come of it
PREPARE: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "LEditsPPPipelineStableDiffusion": _edited,
    "LEditsPPPipelineStableDiffusionXL": _edited,
    "StableDiffusionDiffEditPipeline": _inverted,
    "StableDiffusionPix2PixZeroPipeline": _directions,
}


def taken(pipe: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a pipeline's call."""
    return inspect.signature(type(pipe).__call__).parameters


def arguments(pipe: Any, *, prepared: bool = True) -> dict[str, Any]:
    """Return the arguments of a call of a pipeline, its text left out, seeded. prepared: what comes before it is done."""
    import torch

    name, takes = type(pipe).__name__, taken(pipe)
    values = {**ARGUMENTS, **OWN.get(name, {})}
    given = {key: value() for key, value in values.items() if value is not None and key in takes}
    if prepared and name in PREPARE:
        given |= PREPARE[name](pipe)
    if "generator" in takes:
        given["generator"] = torch.Generator().manual_seed(0)
    return given
