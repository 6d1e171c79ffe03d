"""The bundled custom pipeline, loaded by path as its users load it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipcond.diffusion.conditioner import condition
from clipcond.diffusion.pipelines import load_pipeline
from clipcond.resources import bundled

LONG = "a red circle in the top left, " * 20


@pytest.fixture(scope="module")
def custom(sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    load_pipeline(sd_folder, device="cpu")  # makes torchvision importable
    from diffusers import DiffusionPipeline

    modules = tmp_path_factory.mktemp("modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(modules))
        file = bundled("pipelines", "clipcond_stable_diffusion.py")
        pipe = DiffusionPipeline.from_pretrained(sd_folder, custom_pipeline=str(file), trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, *arguments: Any, **options: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(3)
    image = pipe(*arguments, **options, num_inference_steps=2, generator=generator, output_type="np").images
    assert isinstance(image, np.ndarray)
    return image


def test_the_file_defines_exactly_one_pipeline(custom: Any) -> None:
    from diffusers import DiffusionPipeline

    assert type(custom).__name__ == "ClipCondStableDiffusionPipeline"
    module = inspect.getmodule(type(custom))
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, DiffusionPipeline)
        and not value.__module__.startswith("diffusers.")
    ]
    assert classes == [type(custom)]


def test_its_pictures_are_the_conditioners(custom: Any, sd_pipe: Any) -> None:
    out = condition(sd_pipe, [LONG, "a fox"], "grey", clip_skip=1)
    ours = draw(custom, [LONG, "a fox"], negative_prompt="grey", clip_skip=1)
    assert np.array_equal(ours, draw(sd_pipe, **out.kwargs))


def test_a_short_prompt_is_the_stock_picture(custom: Any, sd_pipe: Any) -> None:
    ours, stock = (draw(pipe, "a fox", 16, 16, num_images_per_prompt=2) for pipe in (custom, sd_pipe))
    assert ours.shape == (2, 16, 16, 3)
    assert abs(ours - stock).max() < 1e-4


def test_given_embeddings_go_through(custom: Any, sd_pipe: Any) -> None:
    given = condition(sd_pipe, LONG).kwargs
    assert np.array_equal(draw(custom, **given), draw(sd_pipe, **given))
