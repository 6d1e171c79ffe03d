"""diffusers' layer-wise casting stores weights in 8 bits: embeddings are in the dtype that is computed in, never in 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clipcond.condition.cache import Cache
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.conditioning import Conditioning
from clipcond.encode.inversion import Inversion

Pipes = Callable[[str], Any]
COMPUTE = torch.bfloat16
FAMILIES = ("sd15", "sd2", "sdxl", "refiner", "sd3", "sd3-no-t5", "flux")


def cast(pipe: Any, **options: Any) -> Any:
    """The pipeline with all its text encoders stored in 8 bits."""
    from diffusers.hooks import apply_layerwise_casting

    pipe.to(COMPUTE)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and name.startswith("text_encoder"):
            # T5 looks at the dtype of its weights before it uses them, and fails unless it is cast as a whole
            own = {"skip_modules_pattern": None} if "T5" in type(part).__name__ else options
            apply_layerwise_casting(part, storage_dtype=torch.float8_e4m3fn, compute_dtype=COMPUTE, **own)
    return pipe


def away(states: torch.Tensor, others: torch.Tensor) -> float:
    """The distance of states in parts of their length."""
    return float((states.float() - others.float()).norm() / others.float().norm())


@pytest.mark.parametrize("options", [{}, {"skip_modules_pattern": None}], ids=["norms apart", "norms too"])
@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_in_the_dtype_that_is_computed_in(
    fresh: Pipes, tmp_path: Path, family: str, options: dict[str, Any]
) -> None:
    pipe = fresh(family).to(COMPUTE)
    how: dict[str, Any] = {"dialect": "a1111", "num_images_per_prompt": 2}
    whole = Conditioner.from_pipeline(pipe)("a (red:1.3) fox", "grey", **how)
    conditioner = Conditioner.from_pipeline(cast(pipe, **options), cache=Cache(folder=tmp_path / "cache"))
    out = conditioner("a (red:1.3) fox", "grey", **how)
    assert {name: tensor.dtype for name, tensor in out.tensors.items()} == dict.fromkeys(whole.tensors, COMPUTE)
    for name, tensor in out.tensors.items():  # 8 bits of a weight are some hundredths of it
        assert away(tensor, whole.tensors[name]) < 0.3, name
    again = Conditioner.from_pipeline(pipe, cache=Cache(folder=tmp_path / "cache"))("a (red:1.3) fox", "grey", **how)
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in out.tensors.items())
    out.save(tmp_path / "fox.safetensors")
    for force in (False, True):
        back = Conditioning.load(tmp_path / "fox.safetensors", pipe, force=force)
        assert all(torch.equal(back.tensors[name], tensor) for name, tensor in out.tensors.items())


def test_textual_inversions_keep_their_numbers(fresh: Pipes) -> None:
    pipe = fresh("sd15").to(COMPUTE)
    vector = torch.linspace(-1, 1, 32)[None]
    inversion = Inversion(name="ink", vectors={"clip_l": vector})
    whole = Conditioner.from_pipeline(pipe, embeddings=inversion)("an ink fox", dialect="a1111")
    out = Conditioner.from_pipeline(cast(pipe), embeddings=inversion)("an ink fox", dialect="a1111")
    assert out.prompt_embeds.dtype == COMPUTE
    assert away(out.prompt_embeds, whole.prompt_embeds) < 0.3


@pytest.mark.parametrize("family", ["sd15", "sd3"])
def test_a_picture_is_drawn_by_a_denoiser_in_8_bits(fresh: Pipes, family: str) -> None:
    pipe = fresh(family).to(COMPUTE)
    denoiser = pipe.unet if family == "sd15" else pipe.transformer
    denoiser.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=COMPUTE)
    out = Conditioner.from_pipeline(pipe)("a red fox", "grey")
    pictures = pipe(**out.kwargs, num_inference_steps=1, height=16, width=16, output_type="pt").images
    assert torch.isfinite(pictures.float()).all()
