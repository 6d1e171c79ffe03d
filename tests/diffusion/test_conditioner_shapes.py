"""Pipelines that take text in another way than their family: Stable Cascade, LEDITS++, the latent upscaler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clipcond import load_pipeline
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.conditioning import Conditioning
from clipcond.errors import ConfigError, ModelError

from .conftest import clip, seeded, unet, vae

Pipes = Callable[[str], Any]
SHORT = "a red fox in the snow, soft light"
LONG = "a red fox, " * 40


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def cascade_prior(clip_tokenizers: tuple[Any, Any]) -> Any:
    from diffusers import DDPMWuerstchenScheduler, StableCascadePriorPipeline
    from diffusers.models import StableCascadeUNet

    def make() -> Any:
        prior = StableCascadeUNet(
            conditioning_dim=16, block_out_channels=(16, 16), num_attention_heads=(2, 2),
            down_num_layers_per_block=(1, 1), up_num_layers_per_block=(1, 1), switch_level=(False,),
            clip_text_in_channels=32, clip_text_pooled_in_channels=32, clip_image_in_channels=24,
        )  # fmt: skip
        return StableCascadePriorPipeline(
            tokenizer=clip_tokenizers[0], text_encoder=clip(32, projection=True, act="gelu"), prior=prior,
            scheduler=DDPMWuerstchenScheduler(),
        )  # fmt: skip

    return seeded(make)


def cascade_stock(pipe: Any, prompt: Any, negative: Any, count: int) -> dict[str, torch.Tensor]:
    prompts = prompt if isinstance(prompt, list) else [prompt]
    with torch.no_grad():
        out = pipe.encode_prompt("cpu", len(prompts), count, True, prompt, negative)
    names = ("prompt_embeds", "prompt_embeds_pooled", "negative_prompt_embeds", "negative_prompt_embeds_pooled")
    return dict(zip(names, out, strict=True))


@pytest.mark.parametrize("negative", [None, "", "blurry, grey"])
@pytest.mark.parametrize("prompt", ["", SHORT, "fox " * 75])
def test_stable_cascade_equals_its_own_encoding(cascade_prior: Any, prompt: str, negative: str | None) -> None:
    ours = Conditioner.from_pipeline(cascade_prior)(prompt, negative, num_images_per_prompt=2).kwargs
    theirs = cascade_stock(cascade_prior, prompt, negative, 2)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        close(ours[name], tensor)


def test_the_padding_of_stable_cascade_is_masked(cascade_prior: Any) -> None:
    """A row's padding changes with the mask: the same ids without it are another encoding."""
    out = Conditioner.from_pipeline(cascade_prior)(SHORT).prompt_embeds[0]
    ids = cascade_prior.tokenizer(SHORT, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        unmasked = cascade_prior.text_encoder(ids, output_hidden_states=True).hidden_states[-1][0]
    end = len(cascade_prior.tokenizer(SHORT).input_ids)
    close(out[:end], unmasked[:end])
    assert (out[end:] - unmasked[end:]).abs().max() > 0.01


def test_stable_cascade_draws_from_long_weighted_prompts(cascade_prior: Any, tmp_path: Any) -> None:
    conditioner = Conditioner.from_pipeline(cascade_prior)
    out = conditioner([SHORT, LONG + "(blue:1.3)"], "blurry", dialect="a1111")
    assert out.prompt_embeds.shape == (2, 3 * 77, 32)
    assert out.kwargs["prompt_embeds_pooled"].shape == (2, 1, 32)
    made = cascade_prior(**out.kwargs, height=128, width=128, num_inference_steps=2, output_type="pt").image_embeddings
    assert made.shape[0] == 2
    assert bool(torch.isfinite(made).all())
    out.save(tmp_path / "fox.safetensors")
    for pipe in (None, cascade_prior):
        loaded = Conditioning.load(tmp_path / "fox.safetensors", pipe)
        assert all(loaded.kwargs[name].equal(each) for name, each in out.kwargs.items())


def test_what_stable_cascade_cannot_do_is_said(cascade_prior: Any) -> None:
    conditioner = Conditioner.from_pipeline(cascade_prior)
    with pytest.raises(ConfigError, match="its text cannot change over the steps"):
        conditioner("a [red:blue:0.5] fox", dialect="a1111", steps=4)
    with pytest.raises(ConfigError, match="StableCascadePriorPipeline has no negative side that AND could be composed"):
        conditioner.compose("a fox AND a bird")
    with pytest.raises(ConfigError, match="the prediction of StableCascadePriorPipeline cannot be steered; use one of"):
        conditioner.counterfactual("a (fox:0)", dialect="a1111")


@pytest.fixture(scope="module")
def upscaler(clip_tokenizers: tuple[Any, Any]) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionLatentUpscalePipeline

    return seeded(
        lambda: StableDiffusionLatentUpscalePipeline(
            vae=vae(),
            text_encoder=clip(32, projection=False),
            tokenizer=clip_tokenizers[0],
            unet=unet(32, in_channels=8),
            scheduler=EulerDiscreteScheduler(),
        )
    )


def test_the_latent_upscaler_equals_its_own_encoding(upscaler: Any) -> None:
    out = Conditioner.from_pipeline(upscaler)([SHORT, "a bird"], "blurry")
    with torch.no_grad():
        theirs = upscaler.encode_prompt([SHORT, "a bird"], "cpu", True, ["blurry", "blurry"])
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    assert out.kwargs.keys() == set(names)
    for name, tensor in zip(names, theirs, strict=True):
        close(out.kwargs[name], tensor)


@pytest.fixture(scope="module")
def ledits(pipes: Pipes) -> Callable[[str], Any]:
    import diffusers

    def get(family: str) -> Any:
        parts = dict(pipes(family).components)
        parts["scheduler"] = diffusers.DPMSolverMultistepScheduler(
            algorithm_type="sde-dpmsolver++", solver_order=2, steps_offset=1
        )
        if family == "sdxl":
            kind, more = diffusers.LEditsPPPipelineStableDiffusionXL, {"add_watermarker": False}
            parts = {name: part for name, part in parts.items() if name not in ("image_encoder", "feature_extractor")}
        else:
            kind, more = diffusers.LEditsPPPipelineStableDiffusion, {"requires_safety_checker": False}
            parts = {name: part for name, part in parts.items() if name != "image_encoder"}
        made = kind(**parts, **more)
        made.set_progress_bar_config(disable=True)
        made.batch_size = 1
        return made

    return get


def test_the_edits_of_ledits_equal_its_own_encoding(ledits: Callable[[str], Any]) -> None:
    pipe = ledits("sd15")
    with torch.no_grad():
        editing, negative, _ = pipe.encode_prompt("cpu", 1, True, "blurry", SHORT)
    ours = Conditioner.from_pipeline(pipe)(SHORT, "blurry").as_editing()
    assert ours.keys() == {"editing_prompt_embeds", "negative_prompt_embeds"}
    close(ours["editing_prompt_embeds"], editing)
    close(ours["negative_prompt_embeds"], negative)

    pipe = ledits("sdxl")
    with torch.no_grad():
        negative, editing, pooled_negative, pooled, _ = pipe.encode_prompt(
            negative_prompt="blurry", editing_prompt=[SHORT, "a bird"]
        )
    ours = Conditioner.from_pipeline(pipe)([SHORT, "a bird"], "blurry").kwargs
    theirs = {
        "editing_prompt_embeddings": editing, "editing_pooled_prompt_embeds": pooled,
        "negative_prompt_embeds": negative, "negative_pooled_prompt_embeds": pooled_negative,
    }  # fmt: skip
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        close(ours[name], tensor)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of diffusers' schedulers with NumPy 2
def test_ledits_edits_a_picture(ledits: Callable[[str], Any]) -> None:
    from PIL import Image

    pipe = ledits("sd15")
    pipe.invert(image=Image.new("RGB", (32, 32), "red"), num_inversion_steps=4, skip=0.1)
    out = Conditioner.from_pipeline(pipe)(LONG, "blurry")
    settings = {
        "edit_guidance_scale": 5.0,
        "edit_threshold": 0.5,
        "use_intersect_mask": False,
    }  # a mask by words needs them
    made = pipe(**out.kwargs, **settings, output_type="pt").images
    assert made.shape[0] == 1
    assert bool(torch.isfinite(made).all())


def test_what_ledits_cannot_take_is_said(ledits: Callable[[str], Any]) -> None:
    conditioner = Conditioner.from_pipeline(ledits("sd15"))
    several = conditioner([SHORT, "a bird"])
    assert several.kwargs.keys() == {"editing_prompt_embeds"}
    assert several.as_editing(images=3)["editing_prompt_embeds"].shape[0] == 6
    with pytest.raises(ConfigError, match="2 edits: LEDITS"):
        _ = conditioner([SHORT, "a bird"], "blurry").kwargs
    with pytest.raises(ConfigError, match="share one negative prompt"):
        _ = conditioner([SHORT, "a bird"], ["blurry", "grey"]).kwargs


def test_editing_arguments_are_of_ledits_alone() -> None:
    with pytest.raises(ConfigError, match="as_editing is for a conditioner of a LEDITS"):
        Conditioner.from_pipeline(load_pipeline("mini"))(SHORT).as_editing()


def test_priors_that_take_no_embeds_are_named(clip_tokenizers: tuple[Any, Any]) -> None:
    class Prior:
        def __init__(self) -> None:
            self.components = {"prior": object(), "text_encoder": object(), "tokenizer": clip_tokenizers[0]}

        def __call__(self, prompt: str) -> None: ...

    with pytest.raises(ModelError, match="Prior takes no prompt_embeds; supported are"):
        Conditioner.from_pipeline(Prior())
