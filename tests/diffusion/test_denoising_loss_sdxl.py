"""SDXL's denoising loss against a naive one that asks the pipeline itself for all it reads of a prompt."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from clipcond.condition.targets import TARGETS
from clipcond.diffusion.denoising_loss_sdxl import SdxlDenoisingLoss
from clipcond.errors import ConfigError, ModelError

OWN = ["a red fox", "", "snow at night, a small house"]
BESIDE = ["oil painting", "a bird", ""]


@pytest.fixture
def pipe(pipes: Callable[[str], Any]) -> Iterator[Any]:
    """A pipeline whose U-Net a test may change."""
    shared = pipes("sdxl")
    own = copy.copy(shared)
    own.unet = copy.deepcopy(shared.unet)
    yield own
    for part in (shared.vae, shared.text_encoder, shared.text_encoder_2):
        part.requires_grad_(True)


def read(pipe: Any, target: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The pipeline's own states of both encoders, the one of the target reading OWN, and the pooled vector."""
    first, second = (OWN, BESIDE) if target == "sdxl-l" else (BESIDE, OWN)
    with torch.no_grad():
        states, _, pooled, _ = pipe.encode_prompt(
            first, prompt_2=second, do_classifier_free_guidance=False, device="cpu"
        )
    return states[..., :24], states[..., 24:], pooled


def naive(pipe: Any, latents: torch.Tensor, states: torch.Tensor, pooled: torch.Tensor, draw: torch.Generator) -> Any:
    """Picture by picture, with the scheduler's own noising."""
    steps = pipe.scheduler.config.num_train_timesteps
    shares = torch.rand(len(latents), generator=draw).double().tolist()
    noise = torch.randn(latents.shape, generator=draw)
    errors = []
    for n, share in enumerate(shares):
        at = torch.tensor([min(steps - 1, int(share**0.5 * steps))])
        noisy = pipe.scheduler.add_noise(latents[n : n + 1], noise[n : n + 1], at)
        told = {"text_embeds": pooled[n : n + 1], "time_ids": torch.tensor([[16.0, 16, 0, 0, 16, 16]])}
        said = pipe.unet(noisy, at, encoder_hidden_states=states[n : n + 1], added_cond_kwargs=told).sample
        errors.append((said - noise[n : n + 1]).square().mean())
    return torch.stack(errors).mean()


@pytest.mark.parametrize("target", ["sdxl-l", "sdxl-g"])
def test_loss_and_gradients_equal_a_naive_reference(pipe: Any, target: str) -> None:
    loss = SdxlDenoisingLoss(pipe, name="it", target=target)
    assert (loss.target, loss.width, loss.preprocess.height) == (target, 24 if target == "sdxl-l" else 40, 16)
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    first, second, pooled = read(pipe, target)
    own = first if target == "sdxl-l" else second
    mine, theirs = own.clone().requires_grad_(), own.clone().requires_grad_()
    vectors = [pooled.clone().requires_grad_() for _ in range(2)]
    given = None if target == "sdxl-l" else vectors[0]
    value = loss.loss(latents, mine, given, BESIDE, torch.Generator().manual_seed(5))
    joined = torch.cat([theirs, second] if target == "sdxl-l" else [first, theirs], dim=-1)
    expected = naive(pipe, latents, joined, vectors[1], torch.Generator().manual_seed(5))
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    value.backward()
    expected.backward()
    assert float(theirs.grad.abs().max()) > 0  # type: ignore[union-attr]
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-6, rtol=1e-3)
    if target == "sdxl-g":
        torch.testing.assert_close(vectors[0].grad, vectors[1].grad, atol=1e-6, rtol=1e-3)
    frozen = [*pipe.unet.parameters(), *pipe.text_encoder.parameters(), *pipe.text_encoder_2.parameters()]
    assert all(parameter.grad is None for parameter in frozen)


def test_the_caption_beside_counts(pipe: Any) -> None:
    loss = SdxlDenoisingLoss(pipe, name="it", target="sdxl-l")
    latents, states = torch.randn(3, 4, 8, 8), read(pipe, "sdxl-l")[0]
    values = [
        float(loss.loss(latents, states, None, beside, torch.Generator().manual_seed(1))) for beside in (BESIDE, OWN)
    ]
    assert values[0] != values[1]


def test_what_does_not_fit_is_refused(pipe: Any, pipes: Callable[[str], Any]) -> None:
    assert {name for name, (family, _) in TARGETS.items() if family == "sdxl"} == {"sdxl-l", "sdxl-g"}
    with pytest.raises(ConfigError, match=r"which of them trains: sdxl-l or sdxl-g \(target is sd15\)"):
        SdxlDenoisingLoss(pipe, name="it", target="sd15")
    with pytest.raises(ModelError, match="it is a pipeline of sd15, expected sdxl"):
        SdxlDenoisingLoss(pipes("sd15"), name="it", target="sdxl-l")
    pipe.vae = copy.copy(pipe.vae)
    pipe.vae.register_to_config(latents_mean=[0.0] * 4)
    with pytest.raises(ModelError, match="latents are also shifted"):
        SdxlDenoisingLoss(pipe, name="it", target="sdxl-l")
