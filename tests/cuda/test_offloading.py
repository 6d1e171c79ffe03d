"""Pipelines whose weights wait elsewhere: the same tensors, pictures end to end, encoders back where they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from measures import close

FAMILIES = ("sd15", "sdxl", "sd3", "flux")
PROMPT = "a (red:1.4) fox in the [snow], " + "soft light and a blue bird, " * 20


def places(pipe: Any) -> dict[str, set[str]]:
    """The device types of the weights of each part."""
    import torch

    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {name: {weight.device.type for weight in part.parameters()} for name, part in parts.items()}


def draw(pipe: Any, kwargs: dict[str, Any]) -> Any:
    import torch

    return pipe(
        **kwargs,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(3),
        output_type="pt",
        height=16,
        width=16,
    ).images


def model(pipe: Any, device: str) -> None:
    pipe.enable_model_cpu_offload(device=device)


def sequential(pipe: Any, device: str) -> None:
    pipe.enable_sequential_cpu_offload(device=device)


def grouped(pipe: Any, device: str, **how: Any) -> None:
    import torch
    from diffusers.hooks import apply_group_offloading

    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            apply_group_offloading(part, onload_device=torch.device(device), offload_device=torch.device("cpu"), **how)


def leaves(pipe: Any, device: str) -> None:
    grouped(pipe, device, offload_type="leaf_level")


def blocks(pipe: Any, device: str) -> None:
    grouped(pipe, device, offload_type="block_level", num_blocks_per_group=1)


def streamed(pipe: Any, device: str) -> None:
    grouped(pipe, device, offload_type="leaf_level", use_stream=True)


WAYS = {each.__name__: each for each in (model, sequential, leaves, blocks, streamed)}


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("family", FAMILIES)
def test_offloaded(family: str, way: str, cuda: str, fresh: Callable[[str], Any]) -> None:
    """Encoded twice, the second time after a picture, and drawn: as the pipeline without offloading does it on the GPU."""
    from clipcond.diffusion.conditioner import Conditioner

    whole, pipe = fresh(family).to(cuda), fresh(family)
    WAYS[way](pipe, cuda)
    before = places(pipe)
    negative = None if family == "flux" else "blurry"
    theirs = Conditioner.from_pipeline(whole)(PROMPT, negative, dialect="a1111")
    conditioner = Conditioner.from_pipeline(pipe)
    for turn in ("first", "second"):
        ours = conditioner(PROMPT, negative, dialect="a1111")
        for name, tensor in theirs.tensors.items():
            assert str(ours.tensors[name].device) == cuda, f"{name} is on {ours.tensors[name].device}"
            close(ours.tensors[name], tensor, relative=1e-5, what=f"{family} {way} {turn} {name}")
        close(draw(pipe, ours.kwargs), draw(whole, theirs.kwargs), relative=1e-3, what=f"{family} {way} {turn} picture")
    assert places(pipe) == before, f"weights were on {before}, and are on {places(pipe)}"


@pytest.mark.parametrize("way", ["model", "sequential"])
def test_encoding_alone_gives_the_memory_back(way: str, cuda: str, fresh: Callable[[str], Any]) -> None:
    """Without a picture afterwards: what diffusers itself would free is freed by its own method."""
    import torch

    from clipcond.diffusion.conditioner import Conditioner

    pipe = fresh("sdxl")
    WAYS[way](pipe, cuda)
    before = places(pipe)
    made = Conditioner.from_pipeline(pipe)(PROMPT, "blurry", dialect="a1111")
    pipe.maybe_free_model_hooks()
    assert places(pipe) == before
    assert all(bool(torch.isfinite(each).all()) for each in made.tensors.values())


def test_steering_and_and_on_an_offloaded_pipeline(cuda: str, fresh: Callable[[str], Any]) -> None:
    import torch

    from clipcond.diffusion.compose_denoiser import composed
    from clipcond.diffusion.conditioner import Conditioner
    from clipcond.diffusion.counterfactual.drawing import draw_steered

    found: dict[str, list[Any]] = {"and": [], "steered": []}
    for offloaded in (False, True):
        pipe = fresh("sdxl")
        if offloaded:
            model(pipe, cuda)
        else:
            pipe.to(cuda)
        make = Conditioner.from_pipeline(pipe)
        parts = make.compose("a red fox AND a blue bird :0.8", "grey")
        with composed(pipe, parts):
            found["and"].append(draw(pipe, parts.kwargs))
        steering = make.counterfactual("a (red:1.5) fox, (snow:0.5)", "grey", dialect="a1111")
        made = draw_steered(
            pipe, steering, num_inference_steps=3, generator=torch.Generator().manual_seed(3), output_type="pt",
            height=16, width=16,
        )  # fmt: skip
        found["steered"].append(made.images)
    for name, (whole, parts) in found.items():
        close(torch.as_tensor(parts), torch.as_tensor(whole), relative=1e-3, what=f"{name}, offloaded")
