"""Tiny pipelines of every family: random weights of seed 0, real encoder classes, CLIP's own vocabulary, a small T5.

What a test changes it must put back; `fresh` gives a pipeline that it may keep.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny_pipelines import tokenizers
from tiny_pipelines.parts import clip, t5, unet, vae

from clipcond.runtime.torchvision_repair import repair

repair()

FAMILIES = ("sd15", "sd2", "sdxl", "refiner", "sd3", "sd3-no-t5", "flux")


@pytest.fixture(scope="session")
def clip_tokenizers(sd_folder: Path) -> tuple[Any, Any]:
    """CLIP's tokenizer as OpenAI's towers have it, and as OpenCLIP's have it: padding with `!`."""
    from transformers import CLIPTokenizer

    folder = sd_folder / "tokenizer"
    return CLIPTokenizer.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder, pad_token="!")


@pytest.fixture(scope="session")
def t5_tokenizer() -> Any:
    """transformers' T5 tokenizer of some words, letters and marks."""
    return tokenizers.t5_tokenizer()


def seeded(make: Callable[[], Any]) -> Any:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = make()
    for part in made.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
            if hasattr(part, "get_input_embeddings") and part.get_input_embeddings() is not None:
                with torch.no_grad():  # as initialised, short texts hardly differ
                    part.get_input_embeddings().weight.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    made.set_progress_bar_config(disable=True)
    return made


def build(family: str, clip_tokenizers: tuple[Any, Any], t5_tokenizer: Any) -> Any:
    """A pipeline of a family around some tokenizers."""
    import diffusers

    first, second = clip_tokenizers
    words = max(t5_tokenizer.get_vocab().values()) + 1
    steps = partial(diffusers.DDIMScheduler, steps_offset=1, clip_sample=False)
    if family in ("sd15", "sd2"):
        return diffusers.StableDiffusionPipeline(
            text_encoder=clip(32, projection=False, act="gelu" if family == "sd2" else "quick_gelu"),
            tokenizer=second if family == "sd2" else first,
            unet=unet(32),
            vae=vae(),
            scheduler=steps(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    if family in ("sdxl", "refiner"):
        refiner = family == "refiner"
        ids = 5 if refiner else 6
        parts = {
            "text_encoder": None if refiner else clip(24, projection=False),
            "tokenizer": None if refiner else first,
            "text_encoder_2": clip(40, projection=True, act="gelu"),
            "tokenizer_2": second,
            "unet": unet(
                40 if refiner else 64,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=8 * ids + 40,
            ),
            "vae": vae(),
            "scheduler": steps(),
            "force_zeros_for_empty_prompt": not refiner,
            "add_watermarker": False,
        }
        if refiner:
            return diffusers.StableDiffusionXLImg2ImgPipeline(**parts, requires_aesthetics_score=True)
        return diffusers.StableDiffusionXLPipeline(**parts)
    if family.startswith("sd3"):
        return sd3(first, second, None if family == "sd3-no-t5" else t5_tokenizer, words)
    return flux(first, t5_tokenizer, words)


def sd3(first: Any, second: Any, third: Any, words: int) -> Any:
    """Stable Diffusion 3 around its tokenizers, without T5 where the third is None."""
    import diffusers

    return diffusers.StableDiffusion3Pipeline(
        text_encoder=clip(24, projection=True),
        tokenizer=first,
        text_encoder_2=clip(40, projection=True, act="gelu"),
        tokenizer_2=second,
        text_encoder_3=None if third is None else t5(96, words),
        tokenizer_3=third,
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=96, caption_projection_dim=16, pooled_projection_dim=64, out_channels=4,
            pos_embed_max_size=16,
        ),
        vae=vae(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )  # fmt: skip


def flux(first: Any, second: Any, words: int) -> Any:
    """Flux around its tokenizers."""
    import diffusers

    return diffusers.FluxPipeline(
        text_encoder=clip(24, projection=False),
        tokenizer=first,
        text_encoder_2=t5(96, words),
        tokenizer_2=second,
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=96, pooled_projection_dim=24, axes_dims_rope=(4, 4, 8),
        ),
        vae=vae(4),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )  # fmt: skip


@pytest.fixture(scope="session")
def pipes(clip_tokenizers: tuple[Any, Any], t5_tokenizer: Any) -> Callable[[str], Any]:
    """The pipeline of a family, shared: leave it as it is."""
    made: dict[str, Any] = {}

    def get(family: str) -> Any:
        if family not in made:
            made[family] = seeded(lambda: build(family, clip_tokenizers, t5_tokenizer))
        return made[family]

    return get


@pytest.fixture
def fresh(clip_tokenizers: tuple[Any, Any], t5_tokenizer: Any) -> Callable[[str], Any]:
    """A pipeline of a family that a test may change, tokenizers included."""

    def get(family: str) -> Any:
        own = tuple(copy.deepcopy(tokenizer) for tokenizer in clip_tokenizers)
        return seeded(lambda: build(family, own, copy.deepcopy(t5_tokenizer)))  # type: ignore[arg-type]

    return get


@pytest.fixture(scope="session")
def build_pipeline() -> Callable[[str, tuple[Any, Any], Any], Any]:
    """`build` with its random weights, for tests with tokenizers of their own."""
    return lambda family, clip_tokenizers, t5_tokenizer: seeded(lambda: build(family, clip_tokenizers, t5_tokenizer))


NAMES = {
    "sd": ("prompt_embeds", "negative_prompt_embeds"),
    "four": (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    ),
}


@pytest.fixture(scope="session")
def stock() -> Callable[..., dict[str, Any]]:
    """The pipeline's own encoding of prompts: (pipe, prompt, negative, count, prompt_2=…) → tensors by argument."""
    return _stock


def _stock(pipe: Any, prompt: Any, negative: Any = None, count: int = 1, **more: Any) -> dict[str, Any]:
    """The pipeline's own encoding of prompts, by the names of arguments, without gradients."""
    import torch

    with torch.no_grad():
        return _encoded(pipe, prompt, negative, count, **more)


def _encoded(pipe: Any, prompt: Any, negative: Any, count: int, **more: Any) -> dict[str, Any]:
    given = {f"prompt{n}": more.pop(f"prompt{n}", None) for n in ("_2", "_3")}
    minus = {f"negative_prompt{n}": more.pop(f"negative_prompt{n}", None) for n in ("_2", "_3")}
    name = type(pipe).__name__
    if name.startswith("Flux"):
        out = pipe.encode_prompt(prompt, given["prompt_2"], num_images_per_prompt=count, **more)
        found = {"prompt_embeds": out[0], "pooled_prompt_embeds": out[1]}
        if negative is not None:
            negative = [negative] * len(prompt) if isinstance(prompt, list) and isinstance(negative, str) else negative
            out = pipe.encode_prompt(negative, minus["negative_prompt_2"], num_images_per_prompt=count, **more)
            found |= {"negative_prompt_embeds": out[0], "negative_pooled_prompt_embeds": out[1]}
        return found
    if name.startswith("StableDiffusion3"):
        out = pipe.encode_prompt(
            prompt, **given, num_images_per_prompt=count, negative_prompt=negative, **minus, **more
        )
    elif name.startswith("StableDiffusionXL"):
        second = {"prompt_2": given["prompt_2"], "negative_prompt_2": minus["negative_prompt_2"]}
        out = pipe.encode_prompt(prompt, num_images_per_prompt=count, negative_prompt=negative, **second, **more)
    else:
        out = pipe.encode_prompt(prompt, "cpu", count, True, negative, **more)
    return dict(zip(NAMES["sd" if len(out) == 2 else "four"], out, strict=True))
