"""The bundled pipeline for AND, loaded by path as its users load it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipcond.diffusion.conditioner import Conditioner, condition
from clipcond.diffusion.pipelines import load_pipeline
from clipcond.resources import bundled


@pytest.fixture(scope="module")
def custom(sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    load_pipeline(sd_folder, device="cpu")  # makes torchvision importable
    from diffusers import DiffusionPipeline

    modules = tmp_path_factory.mktemp("modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(modules))
        file = bundled("pipelines", "clipcond_composition.py")
        pipe = DiffusionPipeline.from_pretrained(sd_folder, custom_pipeline=str(file), trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, *arguments: Any, **options: Any) -> np.ndarray:
    options = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(3), "output_type": "np", **options}
    image = pipe(*arguments, **options).images
    assert isinstance(image, np.ndarray)
    return image


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
    assert [each.__name__ for each in classes] == ["ClipCondCompositionPipeline"]


def test_its_pictures_are_those_of_the_composed_stock_pipeline(custom: Any, sd_pipe: Any) -> None:
    from clipcond.diffusion.compose_denoiser import composed

    prompts = ["a (red:1.2) fox AND a bird :0.6 AND [snow:rain:1]", "a fox"]
    ours = draw(custom, prompts, 16, 16, negative_prompt="grey", clip_skip=1)
    parts = Conditioner.from_pipeline(sd_pipe).compose(prompts, "grey", clip_skip=1, steps=2)
    with composed(sd_pipe, parts):
        theirs = draw(sd_pipe, **parts.kwargs)
    assert np.array_equal(ours, theirs)
    assert not custom.unet._forward_hooks


def test_without_and_it_is_the_stock_picture(custom: Any, sd_pipe: Any) -> None:
    ours, stock = (draw(pipe, "a fox", 16, 16, num_images_per_prompt=2) for pipe in (custom, sd_pipe))
    assert np.allclose(ours, stock, atol=1e-4)


def test_given_embeddings_go_through(custom: Any, sd_pipe: Any) -> None:
    given = condition(sd_pipe, "a fox").kwargs
    assert np.array_equal(draw(custom, **given), draw(sd_pipe, **given))
