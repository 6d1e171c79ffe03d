"""Candidates given up on the way: survivors are the pictures of `generate`, rows are counted, clean predictions are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from clipcond.diffusion.adaptive import clean_prediction, cuts, decode, generate_adaptively
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.generate import generate, prepared
from clipcond.diffusion.regions import Region
from clipcond.errors import ConfigError, ModelError

HOW: dict[str, Any] = {"count": 6, "seed": 3, "batch_size": 4}


def call(pipe: Any, prompt: str = "a red fox", *, steps: int = 6, **more: Any) -> Any:
    return prepared(
        pipe, prompt, negative_prompt="", **{"conditioning": None, "guidance_scale": 3.0, "dialect": "plain", "clip_skip": 0,
        "through": "conditioner", "steps": steps, **HOW, **more},
    )  # fmt: skip


class Brightness:
    """A score that the seeds decide, and how many pictures it was shown."""

    def __init__(self) -> None:
        self.shown: list[int] = []

    def __call__(self, images: Sequence[Image.Image]) -> list[float]:
        self.shown.append(len(images))
        return [float(np.asarray(each.convert("L")).mean()) for each in images]


def small(pipe: Any) -> Any:
    if hasattr(pipe, "transformer"):  # a call without sizes draws 16 × 16
        pipe.default_sample_size = 16 // pipe.vae_scale_factor
    return pipe


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux"])
def test_survivors_are_the_pictures_of_generate(family: str, fresh: Callable[[str], Any]) -> None:
    pipe, score, steps = small(fresh(family)), Brightness(), list[int]()
    made = generate_adaptively(pipe, call(pipe), score, keep=2, on_step=steps.append, **HOW)
    assert score.shown == [6, 3]
    assert (made.left, len(made.pictures)) == ((3, 2), 2)
    assert steps == [6, 6, 3, 3, 2, 2]
    sides = 1 if family == "flux" else 2
    assert (made.spent, made.whole) == (sides * 22, sides * 36)
    whole = list(generate(pipe, "a red fox", steps=6, guidance_scale=3.0, **HOW))
    for picture in made.pictures:
        assert picture.seed == 3 + picture.index
        other = np.asarray(whole[picture.index].image, dtype=int)
        assert np.abs(np.asarray(picture.image, dtype=int) - other).max() <= 1
    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    assert not {"forward", "step"} & (vars(denoiser).keys() | vars(pipe.scheduler).keys())
    assert not denoiser._forward_hooks
    assert not denoiser._forward_pre_hooks


@pytest.mark.parametrize("kind", ["and", "regions", "schedule", "stock"])
def test_whatever_a_prompt_is(kind: str, fresh: Callable[[str], Any]) -> None:
    pipe = fresh("sd15")
    make = Conditioner.from_pipeline(pipe)
    conditioning: Any = None
    if kind == "and":
        conditioning = make.compose("a fox AND snow :0.5", "grey")
    elif kind == "regions":
        conditioning = make.regions("snow", [Region(prompt="a fox", box=(0, 0, 0.5, 1))], "grey")
    elif kind == "schedule":
        conditioning = make("a [fox:bird:0.5]", "grey", dialect="a1111", steps=6)
    through = "stock" if kind == "stock" else "conditioner"
    made = generate_adaptively(
        pipe, call(pipe, "a fox", conditioning=conditioning, through=through), Brightness(), keep=1, **HOW
    )
    whole = list(
        generate(pipe, "a fox", conditioning=conditioning, through=through, steps=6, guidance_scale=3.0, **HOW)
    )
    assert len(made.pictures) == 2
    for picture in made.pictures:
        other = np.asarray(whole[picture.index].image, dtype=int)
        assert np.abs(np.asarray(picture.image, dtype=int) - other).max() <= 1


def test_the_better_half_goes_on(fresh: Callable[[str], Any]) -> None:
    pipe = fresh("sd15")
    scores = iter([[1.0, 6, 2, 5, 3, 4], [0.0, 2, 1]])  # seeds 1, 3 and 5 go on, then 3 and 5
    made = generate_adaptively(pipe, call(pipe), lambda images: next(scores), keep=2, **HOW)
    assert [picture.index for picture in made.pictures] == [3, 5]


def test_cuts() -> None:
    assert cuts(64, 4, 20) == {7: 32, 13: 16}
    assert cuts(16, 1, 3, (3 / 8, 1 / 8)) == {1: 6, 2: 2}
    assert cuts(5, 4, 3) == {1: 4, 2: 4}
    for given, says in (((8, 1, 2), "3 or more"), ((8, 8, 9), "fewer"), ((8, 0, 9), "keep is 0")):
        with pytest.raises(ConfigError, match=says):
            cuts(*given)
    with pytest.raises(ConfigError, match="2 shares"):
        cuts(8, 1, 9, (0.25, 0.5))


SCHEDULERS: list[tuple[Any, dict[str, Any]]] = [
    (diffusers.DDIMScheduler, {"prediction_type": "v_prediction"}),
    (diffusers.DDPMScheduler, {}),
    (diffusers.PNDMScheduler, {"skip_prk_steps": True}),
    (diffusers.EulerDiscreteScheduler, {}),
    (diffusers.EulerAncestralDiscreteScheduler, {}),
    (diffusers.HeunDiscreteScheduler, {}),
    (diffusers.LMSDiscreteScheduler, {}),
    (diffusers.DPMSolverMultistepScheduler, {}),
    (diffusers.UniPCMultistepScheduler, {}),
    (diffusers.FlowMatchEulerDiscreteScheduler, {}),
]


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of diffusers
@pytest.mark.parametrize(("kind", "config"), SCHEDULERS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_perfect_prediction_tells_the_clean_latents(kind: Any, config: dict[str, Any]) -> None:
    flow = kind is diffusers.FlowMatchEulerDiscreteScheduler
    scheduler = kind(**config, **({} if flow else {"clip_sample": False} if "DDI" in kind.__name__ else {}))
    scheduler.set_timesteps(9)
    time = scheduler.timesteps[3]
    clean, noise = (torch.rand(1, 4, 4, 4, generator=torch.Generator().manual_seed(seed)) - 0.5 for seed in (0, 1))
    if flow:
        sample, output = scheduler.scale_noise(clean, time[None], noise), noise - clean
    else:
        sample, output = scheduler.add_noise(clean, noise, time[None]), noise
        scaled = scheduler.scale_model_input(sample, time)
        if config.get("prediction_type"):
            signal = scheduler.alphas_cumprod[time]
            output = signal.sqrt() * noise - (1 - signal).sqrt() * clean
        assert scaled.shape == sample.shape
    for name in ("_step_index", "_begin_index"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, None)
    step = scheduler.step(output, time, sample)
    found = clean_prediction(scheduler, step, output, time, sample)
    assert torch.allclose(found, clean, atol=2e-3)


def test_a_scheduler_that_tells_nothing_is_refused() -> None:
    class Silent:
        config = type("Config", (), {"prediction_type": "epsilon"})()

    tensor = torch.zeros(1, 4, 4, 4)
    with pytest.raises(ModelError, match="Silent does not tell"):
        clean_prediction(Silent(), object(), tensor, 1, tensor)


def test_decoding_is_the_pipeline_s_own(fresh: Callable[[str], Any]) -> None:
    pipe = fresh("sd15")
    made = call(pipe)
    how = {"generator": torch.Generator().manual_seed(0), **made.rows(1)}
    latents = pipe(**how, output_type="latent").images
    (own,) = pipe(**{**how, "generator": torch.Generator().manual_seed(0)}).images
    assert decode(pipe, latents)[0].tobytes() == own.tobytes()
