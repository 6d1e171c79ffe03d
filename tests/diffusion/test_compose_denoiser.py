"""AND: the formula, by hand and in a stock pipeline's loop; and pictures of the embedded model with both objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from clipcond.diffusion.compose_denoiser import Composed, Composition, combine, composed
from clipcond.diffusion.conditioner import Conditioner
from clipcond.errors import ConfigError, ShapeError

STEPS = 3
FAMILIES = ["sd15", "sd2", "sdxl", "sd3"]


def draw(pipe: Any, kwargs: dict[str, Any], *, steps: int = STEPS, **options: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(3)
    sizes = {} if "image" in options else {"height": 16, "width": 16}
    images = pipe(
        **kwargs, num_inference_steps=steps, generator=generator, output_type="np", **{**sizes, **options}
    ).images
    assert isinstance(images, np.ndarray)
    return images


def together(
    pipe: Any, prompt: Any, negative: Any = "grey", *, made: dict[str, Any] | None = None, **options: Any
) -> np.ndarray:
    parts = Conditioner.from_pipeline(pipe).compose(prompt, negative, **(made or {}))
    with composed(pipe, parts):
        return draw(pipe, parts.kwargs, **options)


def hooks(pipe: Any) -> int:
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    return len(denoiser._forward_hooks) + len(denoiser._forward_pre_hooks)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_one_part_of_weight_1_is_the_stock_picture(family: str, guidance: float, pipes: Callable[[str], Any]) -> None:
    pipe = pipes(family)
    stock = draw(
        pipe,
        Conditioner.from_pipeline(pipe)("a (red:1.3) fox", "grey", dialect="a1111").kwargs,
        guidance_scale=guidance,
    )
    for prompt in (
        "a (red:1.3) fox",
        "a (red:1.3) fox AND a blue bird :0",
        "a (red:1.3) fox :0.25 AND a (red:1.3) fox :.75",
    ):
        assert np.allclose(together(pipe, prompt, guidance_scale=guidance), stock, atol=1e-4)
    other = together(pipe, "a (red:1.3) fox AND a blue bird", guidance_scale=guidance)
    assert not np.allclose(other, stock, atol=1e-3)
    assert hooks(pipe) == 0


@torch.no_grad()
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_the_picture_is_that_of_a_loop_by_hand(family: str, pipes: Callable[[str], Any]) -> None:
    pipe = pipes(family)
    scale, weights = 4.0, (1.0, 0.8, -0.3)
    make = Conditioner.from_pipeline(pipe)
    ours = together(pipe, "a red fox AND a blue bird :0.8 AND snow :-0.3", guidance_scale=scale)
    texts = [make(text, "grey") for text in ("a red fox ", " a blue bird ", " snow ")]
    scheduler, generator = pipe.scheduler, torch.Generator().manual_seed(3)
    scheduler.set_timesteps(STEPS)
    latents = torch.randn(1, 4, 8, 8, generator=generator) * scheduler.init_noise_sigma
    sizes = torch.tensor([[16.0, 16, 0, 0, 16, 16]])

    def say(states: Any, pooled: Any, time: Any) -> torch.Tensor:
        added = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}} if pooled is not None else {}
        out: torch.Tensor = pipe.unet(
            scheduler.scale_model_input(latents, time), time, encoder_hidden_states=states, **added
        ).sample
        return out

    for time in scheduler.timesteps:
        u = say(texts[0].negative_prompt_embeds, texts[0].negative_pooled_prompt_embeds, time)
        noise = u.clone()
        for text, weight in zip(texts, weights, strict=True):
            noise += weight * scale * (say(text.prompt_embeds, text.pooled_prompt_embeds, time) - u)
        latents = scheduler.step(noise, time, latents).prev_sample
    image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    theirs = pipe.image_processor.postprocess(image, output_type="np")
    assert np.allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("through", ["compose", "pipeline"])
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_batch_of_different_numbers_of_parts(family: str, through: str, pipes: Callable[[str], Any]) -> None:
    pipe = pipes(family)
    prompts = ["a fox", "a red fox AND a bird AND snow :0.5"]
    options = {"num_images_per_prompt": 2}
    here, there = (options, {}) if through == "compose" else ({}, options)
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ours = together(pipe, prompts, ["grey", "soft"], made=here, latents=latents, **there)
    assert len(ours) == 4
    alone = [
        together(pipe, prompt, negative, latents=latents[2 * at : 2 * at + 2], num_images_per_prompt=2)
        for at, (prompt, negative) in enumerate(zip(prompts, ["grey", "soft"], strict=True))
    ]
    assert np.allclose(ours, np.concatenate(alone), atol=2e-4)


def test_without_a_negative_prompt_it_is_the_pipeline_s_own(pipes: Callable[[str], Any]) -> None:
    for family in ("sd15", "sdxl"):
        pipe = pipes(family)
        stock = draw(pipe, {"prompt": "a fox"})
        assert np.allclose(together(pipe, "a fox", None), stock, atol=2e-4)


def test_only_the_parts_that_weigh_anything_are_computed(pipes: Callable[[str], Any]) -> None:
    pipe, seen = pipes("sd15"), []
    parts = Conditioner.from_pipeline(pipe).compose(["a AND b :0 AND c", "d"], "")
    with composed(pipe, parts):
        handle = pipe.unet.conv_in.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
        draw(pipe, parts.kwargs)
        handle.remove()
    assert seen == [2 + 3] * STEPS
    assert parts.weights.tolist() == [[1, 0, 1], [1, 0, 0]]
    assert parts.parts.shape == (2, 3, 77, 32)


def test_long_parts_are_brought_to_one_length(pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sd15")
    parts = Conditioner.from_pipeline(pipe).compose("a red fox in the snow, " * 16 + "AND a bird", "")
    assert parts.parts.shape == (1, 2, 154, 32)
    assert torch.equal(parts.parts[0, 1, :77], parts.parts[0, 1, 77:])


def test_image_to_image_and_rescaled_guidance(pipes: Callable[[str], Any]) -> None:
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**pipes("sd15").components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    options = {"image": torch.zeros(1, 3, 16, 16), "strength": 0.7}
    stock = draw(pipe, Conditioner.from_pipeline(pipe)("a fox", "grey").kwargs, **options)
    assert np.allclose(together(pipe, "a fox AND a bird :0", **options), stock, atol=2e-4)
    pipe = pipes("sd15")
    stock = draw(pipe, Conditioner.from_pipeline(pipe)("a fox", "grey").kwargs, guidance_rescale=0.7)
    assert np.allclose(together(pipe, "a fox AND a bird :0", guidance_rescale=0.7), stock, atol=2e-4)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_controlnet_s_residuals_reach_every_part(family: str, pipes: Callable[[str], Any]) -> None:
    parts = pipes(family).components
    kind = (
        diffusers.StableDiffusionXLControlNetPipeline
        if family == "sdxl"
        else diffusers.StableDiffusionControlNetPipeline
    )
    options = {"add_watermarker": False} if family == "sdxl" else {"requires_safety_checker": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = diffusers.ControlNetModel.from_unet(parts["unet"], conditioning_embedding_out_channels=(8, 8))
        for block in [*net.controlnet_down_blocks, net.controlnet_mid_block]:
            torch.nn.init.normal_(block.weight, std=0.1)
    pipe = kind(**parts, controlnet=net, **options)
    pipe.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    stock = draw(pipe, Conditioner.from_pipeline(pipe)("a fox", "grey").kwargs, image=image)
    assert np.allclose(together(pipe, "a fox AND a bird :0", image=image), stock, atol=2e-4)
    assert not np.allclose(together(pipe, "a fox AND a bird", image=image), stock, atol=1e-3)


@pytest.mark.filterwarnings("ignore:__array.* implementation doesn't|__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "HeunDiscreteScheduler"])
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_parts_that_change_over_the_steps(family: str, scheduler: str, pipes: Callable[[str], Any]) -> None:
    pipe = pipes(family)
    before = pipe.scheduler
    pipe.scheduler = getattr(diffusers, scheduler).from_config(before.config)
    try:
        make = Conditioner.from_pipeline(pipe)
        scheduled = make("a [fox:bird:2] ", "[grey:soft:1]", dialect="a1111", steps=4)
        stock = draw(pipe, scheduled.kwargs, steps=4, callback_on_step_end=scheduled.callback)
        parts = make.compose("a [fox:bird:2] AND [x|y] :0", "[grey:soft:1]", steps=4)
        with composed(pipe, parts):
            assert np.allclose(draw(pipe, parts.kwargs, steps=4), stock, atol=2e-4)
        with composed(pipe, parts), pytest.raises(ConfigError, match="made for 4 steps, and the pipeline runs 6"):
            draw(pipe, parts.kwargs, steps=6)
    finally:
        pipe.scheduler = before
    assert hooks(pipe) == 0
    assert parts.plans[0].prompt == "a [fox:bird:2] AND [x|y] :0"
    with pytest.raises(ConfigError, match="changes over the steps; say steps="):
        make.compose("a [fox:bird:2] AND b")


def test_hooks_go_whatever_happens(pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sd15")
    parts = Conditioner.from_pipeline(pipe).compose("a AND b", "")
    with pytest.raises(ZeroDivisionError), composed(pipe, parts):
        raise ZeroDivisionError
    assert hooks(pipe) == 0


def test_compel_s_and_is_one_part(pipes: Callable[[str], Any]) -> None:
    make = Conditioner.from_pipeline(pipes("sd15"))
    parts = make.compose('("a fox", "a bird").and()', dialect="compel")
    assert parts.parts.shape[:3] == (1, 1, 154)
    assert torch.allclose(parts.parts[0], make('("a fox", "a bird").and()', dialect="compel").prompt_embeds, atol=1e-5)


def test_what_is_no_composition_is_named(pipes: Callable[[str], Any]) -> None:
    out = Conditioner.from_pipeline(pipes("sd15"))("a fox")
    with pytest.raises(ConfigError, match=r"composed takes what conditioner\.compose"), composed(pipes("sd15"), out):  # type: ignore[arg-type]
        pass


def test_another_prompt_is_not_drawn_as_the_composition(pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sd15")
    parts = Conditioner.from_pipeline(pipe).compose("a fox AND an owl", "")
    with composed(pipe, parts):
        for other in ("another prompt", ["two", "prompts"]):
            with pytest.raises(ConfigError, match="called with another prompt while a composition is open"):
                pipe(other, num_inference_steps=1)


def test_and_in_a_negative_prompt_is_a_word(pipes: Callable[[str], Any]) -> None:
    make = Conditioner.from_pipeline(pipes("sd15"))
    parts = make.compose("a", "b AND c :0.5")
    assert [found.code for found in parts.findings if found.argument == "negative_prompt"] == ["and-is-text"]
    out = make("b AND c", "b AND c", dialect="plain")
    assert torch.equal(
        make("a", "b AND c", dialect="a1111").kwargs["negative_prompt_embeds"], out.kwargs["prompt_embeds"]
    )
    with pytest.raises(ConfigError, match="the prompt has AND in it"):
        make("b AND c", "b AND c", dialect="a1111")


def test_what_cannot_be_composed(pipes: Callable[[str], Any]) -> None:
    make = Conditioner.from_pipeline(pipes("sd15"))
    with pytest.raises(ConfigError, match="num_images_per_prompt is 0, expected 1 or more"):
        make.compose("a", num_images_per_prompt=0)
    with pytest.raises(ConfigError, match="FluxPipeline has no negative side that AND could be composed against"):
        Conditioner.from_pipeline(pipes("flux")).compose("a AND b")
    parts = make.compose("a AND b")
    with (
        pytest.raises(ConfigError, match="FluxPipeline has no denoiser that reads prompt and negative prompt in one"),
        composed(pipes("flux"), parts),
    ):
        pass
    for kind in ("StableDiffusionInstructPix2PixPipeline", "StableDiffusionPAGPipeline"):
        three = getattr(diffusers, kind)(**pipes("sd15").components, requires_safety_checker=False)
        with pytest.raises(ConfigError, match=f"{kind} guides by three sides"), composed(three, parts):
            pass
    twice = {name: torch.cat([tensor] * 3) for name, tensor in parts.kwargs.items()}
    two = make.compose(["a AND b", "c"])
    with (
        composed(pipes("sd15"), two),
        pytest.raises(ConfigError, match="given 6 rows, for 2 composed prompts; expected a"),
    ):
        draw(pipes("sd15"), twice)
    with pytest.raises(ShapeError, match="weights: axis M is 1, expected 2"):
        Composed(parts=torch.zeros(1, 2, 77, 8), weights=torch.ones(1, 1), negative=torch.zeros(1, 77, 8))


def test_the_arithmetic_alone() -> None:
    u, c = torch.randn(2, 3, 4), torch.randn(3, 3, 4)
    owners, weights = torch.tensor([0, 0, 1]), torch.tensor([0.5, 2.0, 1.0])
    ours = combine(u, c, weights, owners)
    assert torch.allclose(ours[0], u[0] + 0.5 * (c[0] - u[0]) + 2 * (c[1] - u[0]), atol=1e-5)
    assert torch.equal(ours[1], c[2])
    assert combine(u.half(), c.half(), weights, owners).dtype == torch.float16


def test_the_embedded_model_draws_both_objects() -> None:
    """It has learned scenes that hold what their captions say and nothing else: so the empty scene is taken off once."""
    from clipcond.diffusion.pipelines import load_pipeline
    from clipcond.mini.world import Object, Scene, check

    pipe = load_pipeline("mini", device="cpu")
    pipe.set_progress_bar_config(disable=True)
    asked = [
        ("brown", ("yellow", "star", "center"), ("green", "cross", "top right")),
        ("teal", ("white", "ring", "bottom left"), ("red", "triangle", "top center")),
        ("gray", ("orange", "circle", "middle left"), ("purple", "square", "middle right")),
    ]
    captions = [[f"{c} {s} in the {p}, {ground} background" for c, s, p in things] for ground, *things in asked]
    prompts = [f"{one} AND {other} AND {asked[at][0]} background :-1" for at, (one, other) in enumerate(captions)]
    parts = Conditioner.from_pipeline(pipe).compose(prompts, "")

    def right(**arguments: Any) -> list[list[bool]]:
        images = pipe(**arguments, num_inference_steps=12, generator=torch.Generator().manual_seed(0)).images
        scenes = [
            Scene(ground, tuple(Object(colour=c, shape=s, cell=p) for c, s, p in things)) for ground, *things in asked
        ]
        return [check(image, scene) for image, scene in zip(images, scenes, strict=True)]

    with composed(pipe, parts):
        both = right(**parts.kwargs, guidance_scale=1.3)
    assert both.count([True, True]) >= 2
    alone = right(prompt=[one for one, _ in captions], guidance_scale=2.0)
    assert alone == [[True, False]] * 3


def test_findings_and_plans_are_those_of_the_text(pipes: Callable[[str], Any]) -> None:
    prompt = "a (fox:1.2.3) AND b"
    parts = Conditioner.from_pipeline(pipes("sd15")).compose(["c", prompt], "", weighting="comfy")
    assert isinstance(parts, Composition)
    assert [(found.code, found.index) for found in parts.findings] == [("bad-weight", 1)]
    assert [len(planned.parts) for planned in parts.plans] == [0, 2]
