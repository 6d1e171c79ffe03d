"""Every family: equal to the pipeline's own `encode_prompt`, and taken by its call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clipcond.diffusion.conditioner import Conditioner

Pipes = Callable[[str], Any]
Stock = Callable[..., dict[str, torch.Tensor]]
SHORT = "a red fox in the snow, soft light"
LONG = "a red fox, " * 40  # 160 content tokens: three chunks
ALL = ("sd15", "sd2", "sdxl", "refiner", "sd3", "sd3-no-t5", "flux")


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], atol: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        close(ours[name], tensor, atol)


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("negative", [None, "", "blurry, grey"])
@pytest.mark.parametrize("prompt", ["", SHORT, "a photo of a red fox! wow!!! 9 <x>", "fox " * 75])
def test_short_prompts_equal_the_pipelines_own(
    pipes: Pipes, stock: Stock, family: str, prompt: str, negative: str | None
) -> None:
    pipe = pipes(family)
    same(Conditioner.from_pipeline(pipe)(prompt, negative).kwargs, stock(pipe, prompt, negative))


@pytest.mark.parametrize("family", ALL)
def test_lists_and_several_pictures_equal_the_pipelines_own(pipes: Pipes, stock: Stock, family: str) -> None:
    pipe, prompts, negatives = pipes(family), [SHORT, "", "a bird"], ["blurry", "", "grey"]
    out = Conditioner.from_pipeline(pipe)(prompts, negatives, num_images_per_prompt=2)
    same(out.kwargs, stock(pipe, prompts, negatives, 2))
    assert out.prompt_embeds.shape[0] == 6


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_prompts_for_each_encoder_equal_the_pipelines_own(pipes: Pipes, stock: Stock, family: str) -> None:
    pipe = pipes(family)
    texts = {"prompt_2": "a blue bird", "negative_prompt_2": "the snow"}
    if family == "sd3":
        texts |= {"prompt_3": "soft light", "negative_prompt_3": "a photo"}
    out = Conditioner.from_pipeline(pipe)(SHORT, "blurry", **texts)
    same(out.kwargs, stock(pipe, SHORT, "blurry", **texts))
    assert {name: plans[0].prompt for name, plans in out.other_plans.items()} == texts


@pytest.mark.parametrize("family", ["sd3", "sd3-no-t5", "flux"])
def test_another_length_of_t5_equals_the_pipelines_own(pipes: Pipes, stock: Stock, family: str) -> None:
    pipe = pipes(family)
    out = Conditioner.from_pipeline(pipe)(SHORT, "blurry", max_sequence_length=64)
    same(out.kwargs, stock(pipe, SHORT, "blurry", max_sequence_length=64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ALL)
def test_half_precision_equals_the_pipelines_own(fresh: Pipes, stock: Stock, family: str, dtype: torch.dtype) -> None:
    pipe = fresh(family).to(dtype)
    same(Conditioner.from_pipeline(pipe)(SHORT, "blurry").kwargs, stock(pipe, SHORT, "blurry"), 2e-2)


@pytest.mark.parametrize("family", [each for each in ALL if each != "refiner"])
def test_the_pipeline_takes_what_it_gives(pipes: Pipes, family: str) -> None:
    pipe = pipes(family)
    out = Conditioner.from_pipeline(pipe)([SHORT, LONG], "blurry")
    image = pipe(**out.kwargs, height=16, width=16, num_inference_steps=2, output_type="np").images
    assert image.shape == (2, 16, 16, 3)
