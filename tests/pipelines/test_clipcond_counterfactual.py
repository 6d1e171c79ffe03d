"""The bundled pipeline for counterfactual weights, loaded by path as its users load it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipcond.diffusion.conditioner import Conditioner, condition
from clipcond.diffusion.counterfactual.drawing import draw_steered
from clipcond.diffusion.pipelines import load_pipeline
from clipcond.resources import bundled

OPTIONS: dict[str, Any] = {"num_inference_steps": 2, "output_type": "np"}


@pytest.fixture(scope="module")
def custom(sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    load_pipeline(sd_folder, device="cpu")  # makes torchvision importable
    from diffusers import DiffusionPipeline

    modules = tmp_path_factory.mktemp("modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(modules))
        file = bundled("pipelines", "clipcond_counterfactual.py")
        pipe = DiffusionPipeline.from_pretrained(sd_folder, custom_pipeline=str(file), trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_the_file_defines_exactly_one_pipeline(custom: Any) -> None:
    from diffusers import DiffusionPipeline

    module = inspect.getmodule(type(custom))
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, DiffusionPipeline)
        and not value.__module__.startswith("diffusers.")
    ]
    assert [each.__name__ for each in classes] == ["ClipCondCounterfactualPipeline"]


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [("a (red fox:0), (snow:2) AND a bird", {}), ("a red fox, snow", {"replace": {"fox": "owl"}, "every": 2})],
)
def test_its_pictures_are_those_of_the_steered_stock_pipeline(
    prompt: str, asked: dict[str, Any], custom: Any, sd_pipe: Any
) -> None:
    ours = custom(prompt, 16, 16, negative_prompt="grey", clip_skip=1, **asked, **OPTIONS, generator=noise()).images
    steering = Conditioner.from_pipeline(sd_pipe).counterfactual(prompt, "grey", dialect="a1111", clip_skip=1, **asked)
    drawn = draw_steered(sd_pipe, steering, height=16, width=16, **OPTIONS, generator=noise())
    assert np.array_equal(ours, drawn.images)
    assert not np.array_equal(ours, drawn.before)
    assert not custom.unet._forward_hooks


def test_without_weights_and_with_given_embeddings_it_is_the_stock_picture(custom: Any, sd_pipe: Any) -> None:
    given = condition(sd_pipe, "a fox", "").kwargs
    stock = sd_pipe(**given, **OPTIONS, generator=noise()).images
    assert np.array_equal(custom("a fox", **OPTIONS, generator=noise()).images, stock)
    assert np.array_equal(custom(**given, **OPTIONS, generator=noise()).images, stock)
