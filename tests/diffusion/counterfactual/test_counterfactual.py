"""Steering: identities, by hand in a stock pipeline's loop, every family as a tiny pipeline, and the embedded model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import clipcond
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.counterfactual import denoiser
from clipcond.diffusion.counterfactual.denoiser import steered
from clipcond.diffusion.counterfactual.drawing import draw_steered
from clipcond.errors import ConfigError
from clipcond.mini import world

STEPS = 2
FAMILIES = ("sd15", "sd2", "sdxl", "sd3", "sd3-no-t5", "flux")
SCENE = "a red circle at the top left, a blue star in the center, a green square at the bottom right"


def draw(pipe: Any, kwargs: dict[str, Any], *, steps: int = STEPS, **options: Any) -> np.ndarray:
    sizes = {} if "image" in options else {"height": 16, "width": 16}
    generator = torch.Generator().manual_seed(3)
    images = pipe(
        **kwargs, num_inference_steps=steps, generator=generator, output_type="np", **{**sizes, **options}
    ).images
    assert isinstance(images, np.ndarray)
    return images


def block(pipe: Any, steering: Any, **options: Any) -> np.ndarray:
    with steered(pipe, steering):
        return draw(pipe, steering.kwargs, **options)


def kept(pipe: Any, steering: Any, *, steps: int = STEPS, **options: Any) -> Any:
    sizes = {} if "image" in options else {"height": 16, "width": 16}
    generator = torch.Generator().manual_seed(3)
    return draw_steered(
        pipe, steering, num_inference_steps=steps, generator=generator, output_type="np", **{**sizes, **options}
    )


def hooks(pipe: Any) -> int:
    module = getattr(pipe, "unet", None) or pipe.transformer
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """M = 1."""
    monkeypatch.setattr(denoiser, "acting_places", torch.ones_like)


# identities, in every family


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_1_are_the_stock_picture_to_the_last_bit(family: str, pipes: Callable[[str], Any]) -> None:
    pipe = pipes(family)
    make = Conditioner.from_pipeline(pipe)
    negative = None if family == "flux" else "grey"
    stock = draw(pipe, make("a red fox, snow", negative).kwargs)
    steering = make.counterfactual("a (red:1) fox, (snow:1.0)", negative, dialect="a1111")
    assert steering.phrases == 0
    assert np.array_equal(block(pipe, steering), stock)
    assert np.array_equal(kept(pipe, steering).images, stock)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("everywhere")
def test_weight_0_everywhere_is_the_prompt_with_the_phrase_hidden(
    family: str, guidance: float, pipes: Callable[[str], Any]
) -> None:
    pipe = pipes(family)
    make = Conditioner.from_pipeline(pipe)
    negative = None if family == "flux" else "grey"
    steering = make.counterfactual("a (red fox:0), snow", negative, dialect="a1111")
    (texts,) = steering.variants
    (part,) = texts.prompts.positive[0]
    (phrase,) = part.phrases
    hidden = replace(part, whole=phrase.other, phrases=())
    without = replace(
        steering,
        variants=(replace(texts, prompts=replace(texts.prompts, positive=((hidden,),))),),
    )
    assert not torch.equal(without.kwargs["prompt_embeds"], steering.kwargs["prompt_embeds"])
    expected = draw(pipe, without.kwargs, guidance_scale=guidance)
    assert np.allclose(block(pipe, steering, guidance_scale=guidance), expected, atol=2e-5)
    assert hooks(pipe) == 0


@torch.no_grad()
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_the_picture_is_that_of_a_loop_by_hand(family: str, pipes: Callable[[str], Any]) -> None:
    pipe, scale = pipes(family), 4.0
    steering = Conditioner.from_pipeline(pipe).counterfactual(
        "a (red fox:-0.5) and (snow:1.5)", "(grey:2)", dialect="a1111"
    )
    ours = block(pipe, steering, guidance_scale=scale)
    (texts,) = steering.variants
    scheduler, generator = pipe.scheduler, torch.Generator().manual_seed(3)
    scheduler.set_timesteps(STEPS)
    latents = torch.randn(1, 4, 8, 8, generator=generator) * scheduler.init_noise_sigma
    sums: dict[int, torch.Tensor] = {}

    def say(text: int, time: Any) -> torch.Tensor:
        added = {}
        if texts.pooled is not None:
            sizes = torch.tensor([[16.0, 16, 0, 0, 16, 16]])
            added = {"added_cond_kwargs": {"text_embeds": texts.pooled[text : text + 1], "time_ids": sizes}}
        states = texts.states[text : text + 1]
        out: torch.Tensor = pipe.unet(
            scheduler.scale_model_input(latents, time), time, encoder_hidden_states=states, **added
        ).sample
        return out[0]

    def side(part: Any, time: Any) -> torch.Tensor:
        whole = say(part.whole, time)
        mixed = whole.clone()
        for phrase in part.phrases:
            away = whole - say(phrase.other, time)
            size = away.square().sum(0).sqrt()
            sums[phrase.other] = sums.get(phrase.other, torch.zeros(8, 8)) + size / size.mean()
            share = ((sums[phrase.other] / sums[phrase.other].quantile(0.98) - 0.2) / 0.2).clamp(0, 1)
            mixed += (phrase.weight - 1) * share * away
            if phrase.weight > 1:
                strong = share
        shrink = (whole.square().sum(0).sqrt() / mixed.square().sum(0).sqrt()).clamp(max=1)
        return mixed * (1 + strong * (shrink - 1))

    for time in scheduler.timesteps:
        (negative,), (positive,) = texts.prompts.negative[0], texts.prompts.positive[0]
        assert len(negative.phrases) == 1
        assert len(positive.phrases) == 2
        u, c = side(negative, time), side(positive, time)
        latents = scheduler.step((u + scale * (c - u))[None], time, latents).prev_sample
    image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    assert np.allclose(ours, pipe.image_processor.postprocess(image, output_type="np"), atol=2e-4)


# what it goes with


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3"])
def test_a_batch_with_and_long_prompts_and_several_pictures(family: str, pipes: Callable[[str], Any]) -> None:
    pipe = pipes(family)
    make = Conditioner.from_pipeline(pipe)
    long = "a (red fox:0) in the snow, " + "soft light, " * 40
    prompts, negatives = ["a (red:0) fox AND a (bird:-1) :0.6", long, "a bird"], ["grey", "(soft:2)", ""]
    latents = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    if family == "sd3":
        latents = latents.repeat(1, pipe.transformer.config.in_channels // 4, 1, 1)
    steering = make.counterfactual(prompts, negatives, dialect="a1111")
    kwargs = {name: each.repeat_interleave(2, dim=0) for name, each in steering.kwargs.items()}
    with steered(pipe, steering):
        together = draw(pipe, kwargs, latents=latents)
    for at, (prompt, negative) in enumerate(zip(prompts, negatives, strict=True)):
        one = make.counterfactual(prompt, negative, dialect="a1111", lengths=None)
        longest = steering.variants[0].states.shape[1]
        if one.variants[0].states.shape[1] == longest or family != "sd3":  # SD3 fills up, which its attention notices
            own = {name: each.repeat_interleave(2, dim=0) for name, each in one.kwargs.items()}
            with steered(pipe, one):
                alone = draw(pipe, own, latents=latents[2 * at : 2 * at + 2])
            assert np.allclose(together[2 * at : 2 * at + 2], alone, atol=5e-4), prompt


@pytest.mark.filterwarnings("ignore:__array.* implementation doesn't|__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerAncestralDiscreteScheduler"])
def test_a_schedule_and_noise_on_the_way(scheduler: str, pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sd15")
    before = pipe.scheduler
    pipe.scheduler = getattr(diffusers, scheduler).from_config(before.config)
    try:
        make = Conditioner.from_pipeline(pipe)
        out = make("a [fox:bird:2] in snow", "grey", dialect="a1111", steps=4)
        stock = draw(pipe, out.kwargs, steps=4, callback_on_step_end=out.callback)
        plain = make.counterfactual("a [fox:bird:2] in snow", "grey", dialect="a1111", steps=4)
        assert np.allclose(block(pipe, plain, steps=4), stock, atol=2e-4)
        steering = make.counterfactual("a [fox:(bird:0):2] in (snow:2)", "grey", dialect="a1111", steps=4)
        made = kept(pipe, steering, steps=4)
        assert np.allclose(made.before, stock, atol=2e-4)
        assert not np.allclose(made.images, stock, atol=1e-3)
        with pytest.raises(ConfigError, match="made for 4 steps, and the pipeline runs 3"):
            block(pipe, steering, steps=3)
    finally:
        pipe.scheduler = before


def test_image_to_image(pipes: Callable[[str], Any]) -> None:
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**pipes("sd15").components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    options = {"image": torch.zeros(1, 3, 16, 16), "strength": 0.7}
    make = Conditioner.from_pipeline(pipe)
    stock = draw(pipe, make("a fox in snow", "grey").kwargs, steps=4, **options)
    made = kept(pipe, make.counterfactual("a (fox:0) in snow", "grey", dialect="a1111"), steps=4, **options)
    assert np.array_equal(made.before, stock)
    assert not np.array_equal(made.images, stock)


def test_flux_with_true_guidance_steers_both_of_its_calls(pipes: Callable[[str], Any]) -> None:
    pipe = pipes("flux")
    make = Conditioner.from_pipeline(pipe)
    seen = []
    for negative in ("grey", "(grey:2)"):
        steering = make.counterfactual("a (red:0) fox", negative, dialect="a1111")
        seen.append(kept(pipe, steering, true_cfg_scale=3.0))
        assert np.array_equal(seen[-1].before, draw(pipe, make("a red fox", "grey").kwargs, true_cfg_scale=3.0))
    assert not np.allclose(seen[0].images, seen[1].images, atol=1e-4)
    assert seen[0].places.shape == (1, 16, 16)


def test_differences_are_taken_again_between_every_so_many_steps(pipes: Callable[[str], Any]) -> None:
    pipe, rows = pipes("sd15"), []
    steering = Conditioner.from_pipeline(pipe).counterfactual("a (fox:0) in (snow:2)", "grey", dialect="a1111", every=2)
    with steered(pipe, steering):
        handle = pipe.unet.conv_in.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
        draw(pipe, steering.kwargs, steps=4)
        handle.remove()
    assert rows == [4, 2, 4, 2]


@pytest.mark.parametrize("dialect", ["a1111", "comfy", "compel"])
def test_every_dialect_names_the_same_phrase(dialect: str, pipes: Callable[[str], Any]) -> None:
    make = Conditioner.from_pipeline(pipes("sd15"))
    written = {"a1111": "a (red fox:0.5), snow", "comfy": "a (red fox:0.5), snow", "compel": "a (red fox)0.5, snow"}
    steering = make.counterfactual(written[dialect], "", dialect=dialect)
    (texts,) = steering.variants
    assert [phrase.weight for phrase in texts.prompts.positive[0][0].phrases] == [0.5]
    reference = make.counterfactual(written["a1111"], "", dialect="a1111")
    assert torch.allclose(texts.states, reference.variants[0].states, atol=1e-6)


# what is refused


def test_what_cannot_be_steered(pipes: Callable[[str], Any]) -> None:
    make = Conditioner.from_pipeline(pipes("sdxl"))
    for asked, message in (
        ({"weighting": "comfy"}, "weighting is 'comfy', which steers nothing"),
        ({"weighting": "counterfactual", "replace": {"fox": "owl"}}, "do one after the other"),
        ({"replace": {"wolf": "owl"}}, "the prompt has no “wolf” in it; there is “a fox"),
        ({"replace": {}}, "replace is empty"),
        ({"replace": {"fox": " "}}, "expected words on both sides; a weight of 0 takes a phrase out"),
        ({"replace": {"fox": "fox"}}, "the prompt stays as it is"),
        ({"replace": {"a fox": "owl", "fox": "bird"}}, "“fox” overlaps with another phrase"),
        ({"every": 0}, "every is 0, expected 1 or more"),
        ({"lengths": "mask"}, "lengths is 'mask', which a steering cannot do"),
        ({"prompt_2": "a (fox:2)", "dialect": "a1111"}, "weights act in the first prompt; take those of prompt_2 out"),
    ):
        with pytest.raises(ConfigError, match=message):
            make.counterfactual("a fox in the snow", **asked)
    for method in (make, make.compose):
        with pytest.raises(ConfigError, match=r"use conditioner\.counterfactual\(\.\.\.\)"):
            method("a fox", weighting="counterfactual")
    with pytest.raises(ConfigError, match="takes no modifier; leave \\+length_norm out"):
        make("a fox", weighting="counterfactual+length_norm")
    with pytest.raises(ConfigError, match="has no negative side that AND could be composed against"):
        Conditioner.from_pipeline(pipes("flux")).counterfactual("a AND b", dialect="a1111")


def test_another_prompt_is_not_drawn_as_the_steering(pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sd15")
    steering = Conditioner.from_pipeline(pipe).counterfactual("a (fox:0)", "", dialect="a1111")
    with steered(pipe, steering), pytest.raises(ConfigError, match="another prompt while a steering is open"):
        pipe("an owl", num_inference_steps=1)
    assert hooks(pipe) == 0
    with (
        pytest.raises(ConfigError, match=r"steered takes what conditioner\.counterfactual\(…\) gives"),
        steered(pipe, 3),
    ):  # type: ignore[arg-type]
        pass
    with pytest.raises(ConfigError, match="output_type is 'jpg', expected one of pil, np, pt or latent"):
        draw_steered(pipe, steering, output_type="jpg")


# on the embedded model


@pytest.fixture(scope="module")
def mini() -> Any:
    pipe = clipcond.load_pipeline("mini")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def scene_of(text: str) -> world.Scene:
    scene = world.parse(text)
    assert len(scene.objects) == 3
    return scene


@pytest.mark.parametrize(("weight", "shown"), [(-1.0, False), (0.0, False), (1.5, True)])
def test_a_weight_acts_in_the_phrases_cell_and_nowhere_else(mini: Any, weight: float, shown: bool) -> None:
    prompt = SCENE.replace("a blue star in the center", f"(a blue star in the center:{weight})")
    steering = Conditioner.from_pipeline(mini).counterfactual(prompt, dialect="a1111")
    made = draw_steered(
        mini, steering, generator=torch.Generator().manual_seed(0), num_inference_steps=8, guidance_scale=2.0
    )
    assert world.check(made.images[0], scene_of(SCENE)) == [True, shown, True]
    assert all(world.check(made.before[0], scene_of(SCENE)))
    after, before = (np.asarray(each[0], dtype=int) for each in (made.images, made.before))
    elsewhere = made.places[0].numpy() == 0
    assert 0.1 < elsewhere.mean() < 0.9
    assert np.array_equal(after[elsewhere], before[elsewhere])


def test_a_replaced_phrase_stands_where_the_old_one_did(mini: Any) -> None:
    made = clipcond.replace(mini, SCENE, {"Blue  star": "yellow ring"}, steps=8, guidance_scale=2.0)
    assert made.prompt == SCENE.replace("blue star", "yellow ring")
    assert all(world.check(made.before, scene_of(SCENE)))
    assert all(world.check(made.image, scene_of(made.prompt)))
    after, before = np.asarray(made.image, dtype=int), np.asarray(made.before, dtype=int)
    elsewhere = made.places.numpy() == 0
    assert 0.3 < elsewhere.mean() < 0.9
    assert np.array_equal(after[elsewhere], before[elsewhere])
