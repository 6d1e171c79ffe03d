"""A tiny pipeline of a class, put together by the signature of its `__init__`.

A part is looked up by its name: first among those that this class alone wants, then among those of its family, then by the
class that its annotation names. What a class may do without is left out.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tiny_pipelines import parts, shown_parts, stage_parts
from tiny_pipelines.tokenizers import clip_tokenizer, t5_tokenizer

Make = Callable[[], Any]
# families whose parts are another's
SAME_PARTS = {"upscaler": "sd15", "editing": "sd15", "editing-xl": "sdxl"}
_VANISHING = ("safety_checker", "feature_extractor", "image_encoder", "watermarker", "audio_vae", "vocoder")
_SETTINGS: Mapping[str, Any] = {"requires_safety_checker": False, "add_watermarker": False}


class NotBuilt(Exception):
    """A class that cannot be put together here; the text says what it needs."""


def scheduler(name: str, **more: Any) -> Make:
    """Return what makes a scheduler of diffusers."""

    def make() -> Any:
        import diffusers

        return getattr(diffusers, name)(**more)

    return make


def _t5() -> Any:
    return parts.t5(96, max(once(t5_tokenizer).get_vocab().values()) + 1)


def _language(family: str, encoder: Callable[[int], Any]) -> dict[str, Make]:
    def model() -> Any:
        return encoder(len(once(partial(shown_parts.chat_words, family))))

    return {
        "text_encoder": model,
        "tokenizer": partial(shown_parts.chat_words, family),
        "text_encoder_2": partial(parts.clip, 24, projection=False),
        "tokenizer_2": clip_tokenizer,
        "scheduler": scheduler("FlowMatchEulerDiscreteScheduler"),
        "vae": parts.video_vae,
    }


_DDIM = scheduler("DDIMScheduler", steps_offset=1, clip_sample=False)
_FLOW = scheduler("FlowMatchEulerDiscreteScheduler")
_CLIP_L, _CLIP_G = partial(parts.clip, 24), partial(parts.clip, 40, projection=True, act="gelu")
_OPEN_TOKENIZER = partial(clip_tokenizer, "!")

PARTS: Mapping[str, Mapping[str, Make]] = {
    "sd15": {
        "text_encoder": partial(parts.clip, 32, projection=False),
        "tokenizer": clip_tokenizer,
        "unet": partial(parts.unet, 32),
        "vae": parts.vae,
        "scheduler": _DDIM,
        "controlnet": partial(parts.controlnet, 32),
        "adapter": parts.t2i_adapter,
        "motion_adapter": parts.motion_adapter,
        "inverse_scheduler": scheduler("DDIMInverseScheduler"),
    },
    "sdxl": {
        "text_encoder": partial(_CLIP_L, projection=False),
        "tokenizer": clip_tokenizer,
        "text_encoder_2": _CLIP_G,
        "tokenizer_2": _OPEN_TOKENIZER,
        "unet": partial(parts.unet, 64, **parts.xl_ids()),
        "vae": parts.vae,
        "scheduler": _DDIM,
        "controlnet": partial(parts.controlnet, 64, **parts.xl_ids()),
        "adapter": parts.t2i_adapter,
        "motion_adapter": parts.motion_adapter,
    },
    "sd3": {
        "text_encoder": partial(_CLIP_L, projection=True),
        "tokenizer": clip_tokenizer,
        "text_encoder_2": _CLIP_G,
        "tokenizer_2": _OPEN_TOKENIZER,
        "text_encoder_3": _t5,
        "tokenizer_3": t5_tokenizer,
        "transformer": parts.sd3_transformer,
        "vae": parts.vae,
        "scheduler": _FLOW,
        "controlnet": parts.sd3_controlnet,
    },
    "flux": {
        "text_encoder": partial(_CLIP_L, projection=False),
        "tokenizer": clip_tokenizer,
        "text_encoder_2": _t5,
        "tokenizer_2": t5_tokenizer,
        "transformer": parts.flux_transformer,
        "vae": parts.vae,
        "scheduler": _FLOW,
        "controlnet": parts.flux_controlnet,
    },
    "cascade": {
        "text_encoder": partial(parts.clip, 32, projection=True, act="gelu"),
        "tokenizer": clip_tokenizer,
        "prior_text_encoder": partial(parts.clip, 32, projection=True, act="gelu"),
        "prior_tokenizer": clip_tokenizer,
        "prior": parts.cascade_prior,
        "prior_prior": parts.cascade_prior,
        "decoder": parts.cascade_decoder,
        "vqgan": parts.paella,
        "scheduler": scheduler("DDPMWuerstchenScheduler"),
        "prior_scheduler": scheduler("DDPMWuerstchenScheduler"),
    },
    "wuerstchen": {
        "text_encoder": partial(parts.clip, 32, projection=False, act="gelu"),
        "tokenizer": clip_tokenizer,
        "prior": stage_parts.wuerstchen_prior,
        "scheduler": scheduler("DDPMWuerstchenScheduler"),
    },
    "unclip": {
        "text_encoder": partial(parts.clip, 32, projection=True),
        "tokenizer": clip_tokenizer,
        "prior": stage_parts.unclip_prior,
        "decoder": stage_parts.unclip_decoder,
        "text_proj": stage_parts.unclip_text,
        "super_res_first": stage_parts.unclip_upscaler,
        "super_res_last": stage_parts.unclip_upscaler,
        "prior_scheduler": scheduler("UnCLIPScheduler", variance_type="fixed_small_log", prediction_type="sample"),
        "decoder_scheduler": scheduler("UnCLIPScheduler", variance_type="learned_range", prediction_type="epsilon"),
        "super_res_scheduler": scheduler("UnCLIPScheduler", variance_type="fixed_small_log", prediction_type="epsilon"),
    },
    "amused": {
        "text_encoder": partial(parts.clip, 32, projection=True),
        "tokenizer": clip_tokenizer,
        "transformer": stage_parts.amused_transformer,
        "vqvae": stage_parts.amused_tokens,
        "scheduler": scheduler("AmusedScheduler", mask_token_id=31),
    },
    "hidream": {
        "text_encoder": partial(stage_parts.long_clip, 24, 248),
        "tokenizer": clip_tokenizer,
        "text_encoder_2": partial(stage_parts.long_clip, 40, 218),
        "tokenizer_2": _OPEN_TOKENIZER,
        "text_encoder_3": _t5,
        "tokenizer_3": t5_tokenizer,
        "text_encoder_4": stage_parts.llama_for_all_layers,
        "tokenizer_4": stage_parts.llama_tokenizer,
        "transformer": stage_parts.hidream_transformer,
        "vae": parts.vae,
        "scheduler": _FLOW,
    },
    "hunyuan-video": _language("hunyuan-video", parts.llama) | {"transformer": parts.hunyuan_transformer},
    "hunyuan-video-i2v": _language("hunyuan-video-i2v", parts.llama)
    | {
        "text_encoder": shown_parts.llava,
        "image_processor": shown_parts.llava_pictures,
        "transformer": partial(parts.hunyuan_transformer, 9, image_condition_type="latent_concat"),
    },
    "kandinsky5-i2i": _language("kandinsky5-i2i", parts.qwen)
    | {
        "text_encoder": shown_parts.qwen_that_sees,
        "tokenizer": shown_parts.qwen_processor,
        "transformer": partial(parts.kandinsky_transformer, visual_cond=True),
        "vae": partial(parts.vae, blocks=4),  # the pipeline takes an eighth for granted
    },
    "kandinsky5": _language("kandinsky5", parts.qwen) | {"transformer": parts.kandinsky_transformer, "vae": parts.vae},
    "kandinsky5-video": _language("kandinsky5-video", parts.qwen) | {"transformer": parts.kandinsky_transformer},
    "kandinsky6": _language("kandinsky6", parts.qwen) | {"transformer": parts.kandinsky6_transformer},
}
_EIGHT = {"in_channels": 8}
_ATTENTION_FIRST = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
_LCM: Mapping[str, Make] = {
    "scheduler": scheduler("LCMScheduler"),
    "unet": partial(parts.unet, 32, time_cond_proj_dim=32),
}
_LEDITS: Mapping[str, Make] = {
    "scheduler": scheduler(
        "DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", solver_order=2, steps_offset=1
    )
}
OWN: Mapping[str, Mapping[str, Make]] = {
    "AnimateDiffSparseControlNetPipeline": {"controlnet": parts.sparse_controlnet},
    "CycleDiffusionPipeline": {
        "scheduler": scheduler("DDIMScheduler", steps_offset=1, clip_sample=False, set_alpha_to_one=False)
    },
    "FluxControlPipeline": {"transformer": partial(parts.flux_transformer, 32)},
    "FluxControlImg2ImgPipeline": {"transformer": partial(parts.flux_transformer, 32)},
    "FluxControlInpaintPipeline": {"transformer": partial(parts.flux_transformer, 32)},
    "FluxFillPipeline": {"transformer": partial(parts.flux_transformer, 48)},
    "FluxPriorReduxPipeline": {
        "image_encoder": parts.siglip_vision,
        "feature_extractor": parts.siglip_pictures,
        "image_embedder": parts.redux_embedder,
    },
    "HunyuanSkyreelsImageToVideoPipeline": {"transformer": partial(parts.hunyuan_transformer, 8)},
    "HunyuanVideoFramepackPipeline": {
        "transformer": partial(
            parts.hunyuan_transformer,
            kind="HunyuanVideoFramepackTransformer3DModel",
            image_condition_type=None,
            has_image_proj=True,
            image_proj_dim=32,
            has_clean_x_embedder=True,
            patch_size=2,
        ),
        "image_encoder": parts.siglip_vision,
        "feature_extractor": parts.siglip_pictures,
    },
    "I2VGenXLPipeline": {
        "unet": parts.unet_i2vgen,
        "image_encoder": partial(parts.clip_vision, 32),
        "feature_extractor": parts.clip_pictures,
    },
    "Kandinsky5I2VPipeline": {"transformer": partial(parts.kandinsky_transformer, visual_cond=True)},
    "LatentConsistencyModelImg2ImgPipeline": _LCM,
    "LatentConsistencyModelPipeline": _LCM,
    "LEditsPPPipelineStableDiffusion": _LEDITS,
    "LEditsPPPipelineStableDiffusionXL": _LEDITS,
    "PIAPipeline": {"motion_adapter": partial(parts.motion_adapter, conv_in_channels=9)},
    "StableDiffusion3InpaintPipeline": {
        "transformer": partial(parts.sd3_transformer, in_channels=16, out_channels=16),
        "vae": partial(parts.vae, 16),
    },
    "StableDiffusion3PAGPipeline": {"transformer": partial(parts.sd3_transformer, num_layers=2)},
    "StableDiffusion3PAGImg2ImgPipeline": {"transformer": partial(parts.sd3_transformer, num_layers=2)},
    "StableDiffusionAdapterPipeline": {"unet": partial(parts.unet, 32, **_ATTENTION_FIRST)},
    "StableDiffusionXLAdapterPipeline": {"unet": partial(parts.unet, 64, **_ATTENTION_FIRST, **parts.xl_ids())},
    "StableDiffusionParadigmsPipeline": {"scheduler": scheduler("DDPMParallelScheduler")},
    "StableDiffusion3ControlNetInpaintingPipeline": {
        "controlnet": partial(parts.sd3_controlnet, extra_conditioning_channels=1),
    },
    "StableDiffusionControlNetXSPipeline": {
        "unet": partial(parts.unet, 32, layers_per_block=2, use_linear_projection=True),
        "controlnet": partial(parts.controlnet_xs, 32),
    },
    "StableDiffusionXLControlNetXSPipeline": {
        "unet": partial(parts.unet, 64, layers_per_block=2, use_linear_projection=True, **parts.xl_ids()),
        "controlnet": partial(parts.controlnet_xs, 64),
    },
    "StableDiffusionDepth2ImgPipeline": {
        "unet": partial(parts.unet, 32, in_channels=5),
        "depth_estimator": parts.depth,
        "feature_extractor": parts.depth_pictures,
    },
    "StableDiffusionGLIGENPipeline": {"unet": partial(parts.unet, 32, attention_type="gated")},
    "StableDiffusionGLIGENTextImagePipeline": {
        "unet": partial(parts.unet, 32, attention_type="gated-text-image"),
        "image_encoder": partial(parts.clip_vision, 32),
        "processor": parts.gligen_processor,
        "image_project": parts.gligen_projection,
    },
    "StableDiffusionInstructPix2PixPipeline": {"unet": partial(parts.unet, 32, **_EIGHT)},
    "StableDiffusionXLInstructPix2PixPipeline": {"unet": partial(parts.unet, 64, **_EIGHT, **parts.xl_ids())},
    "StableDiffusionLDM3DPipeline": {"vae": partial(parts.vae, outputs=6)},
    "StableDiffusionLatentUpscalePipeline": {
        "unet": partial(parts.unet, 32, time_cond_proj_dim=160, out_channels=5, **_EIGHT),
        "scheduler": scheduler("EulerDiscreteScheduler"),
    },
    "StableDiffusionUpscalePipeline": {
        "unet": partial(parts.unet, 32, in_channels=7, num_class_embeds=1000),
        "low_res_scheduler": scheduler("DDPMScheduler"),
    },
    "StableUnCLIPImg2ImgPipeline": {
        "unet": partial(parts.unet, 32, class_embed_type="projection", projection_class_embeddings_input_dim=64),
        "image_encoder": partial(parts.clip_vision, 32),
        "feature_extractor": parts.clip_pictures,
        "image_normalizer": partial(parts.unclip_normalizer, 32),
        "image_noising_scheduler": scheduler("DDPMScheduler"),
    },
    "TextToVideoSDPipeline": {"unet": parts.unet_3d},
    "VideoToVideoSDPipeline": {"unet": parts.unet_3d},
} | {
    f"StableDiffusionXLControlNetUnion{task}Pipeline": {
        "controlnet": partial(parts.controlnet, 64, "ControlNetUnionModel", **parts.UNION, **parts.xl_ids())
    }
    for task in ("", "Img2Img", "Inpaint")
}
# variants of a class by other parts: the class, the family of the rest, and those parts
VARIANTS: Mapping[str, tuple[str, str, Mapping[str, Make]]] = {
    "sd2": ("StableDiffusionPipeline", "sd15", {"tokenizer": _OPEN_TOKENIZER}),
    "refiner": (
        "StableDiffusionXLImg2ImgPipeline",
        "sdxl",
        {
            "text_encoder": lambda: None,
            "tokenizer": lambda: None,
            "unet": partial(parts.unet, 40, **parts.xl_ids(5)),
            "requires_aesthetics_score": lambda: True,
            "force_zeros_for_empty_prompt": lambda: False,
        },
    ),
    "sd3 without T5": (
        "StableDiffusion3Pipeline",
        "sd3",
        {"text_encoder_3": lambda: None, "tokenizer_3": lambda: None},
    ),
}


def class_of(name: str) -> type:
    """Return a pipeline class of diffusers, wherever it stands. Raises NotBuilt for one that cannot be imported."""
    import diffusers

    try:
        found = getattr(diffusers, name)
    except (AttributeError, ImportError, RuntimeError) as error:
        raise NotBuilt(f"cannot be imported: {error}") from error
    if hasattr(found, "from_pretrained") and getattr(found, "_backends", None):  # a stand-in that asks for a library
        raise NotBuilt(f"needs {', '.join(found._backends)}")
    return found  # type: ignore[no-any-return]


def build(name: str, family: str, other: Mapping[str, Make] | None = None) -> Any:
    """Return a tiny pipeline of a class of a family, weights of seed 0.

    other: parts in place of those of the class. Raises NotBuilt, saying what is needed, where a part is not known here.
    """
    kind = class_of(name)
    base = SAME_PARTS.get(family, family)
    if base not in PARTS:
        raise NotBuilt(f"no tiny parts of the family {family}")
    known = {**PARTS[base], **OWN.get(name, {}), **(other or {})}
    given: dict[str, Any] = {}
    for each in list(inspect.signature(kind.__init__).parameters.values())[1:]:
        if each.name in known:
            given[each.name] = once(known[each.name])
        elif each.name in _SETTINGS:
            given[each.name] = _SETTINGS[each.name]
        elif each.default is inspect.Parameter.empty:
            if each.name not in (*_VANISHING, *kind._optional_components):  # type: ignore[attr-defined]
                raise NotBuilt(f"needs {each.name} ({_said(each)})")
            given[each.name] = None
    made = kind(**given)
    made.set_progress_bar_config(disable=True)
    if hasattr(made, "resolutions"):  # Kandinsky 5 draws in the nearest of them
        made.resolutions = [(32, 32)]
    return made


def _said(parameter: inspect.Parameter) -> str:
    return str(getattr(parameter.annotation, "__name__", parameter.annotation))


def once(make: Make) -> Any:
    """Return a copy of what a function makes, which is made once; a tokenizer itself, which nothing here changes."""
    key = repr((make.func, make.args, make.keywords)) if isinstance(make, partial) else make
    if key not in _MADE:
        _MADE[key] = _seeded(make)
    made = _MADE[key]
    return made if hasattr(made, "backend_tokenizer") else copy.deepcopy(made)


_MADE: dict[Any, Any] = {}


def _seeded(make: Make) -> Any:
    """Make a part with weights of seed 0; embeddings of tokens so far apart that texts differ."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        part = make()
    if isinstance(part, torch.nn.Module):
        part.eval()
        _wake(part)
        table = part.get_input_embeddings() if hasattr(part, "get_input_embeddings") else None
        if isinstance(table, torch.nn.Embedding):
            with torch.no_grad():
                table.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    return part


def _wake(module: Any) -> None:
    """Draw the weights that start as zeros: what they lead to would have no effect."""
    import torch

    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim > 1 and not bool(weight.any()):
                weight.normal_(std=0.1, generator=generator)
