import copy
from typing import Any

import numpy as np
import pytest
import torch

from clipcond.diffusion.denoising_loss import DenoisingLoss
from clipcond.errors import ModelError


@pytest.fixture
def pipe(sd_pipe: Any) -> Any:
    """A pipeline whose U-Net a test may change."""
    own = copy.copy(sd_pipe)
    own.unet = copy.deepcopy(sd_pipe.unet)
    return own


@pytest.fixture
def states():
    return torch.randn(3, 77, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def latents():
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))


def naive(pipe, kind, latents, states, draw):
    """The loss again, picture by picture, with the scheduler's own noising."""
    steps = pipe.scheduler.config.num_train_timesteps
    times = [
        min(steps - 1, int(share**0.5 * steps)) for share in torch.rand(len(latents), generator=draw).double().tolist()
    ]
    noise = torch.randn(latents.shape, generator=draw)
    errors = []
    for one, time, eps, state in zip(latents, times, noise, states, strict=True):
        at = torch.tensor([time])
        noisy = pipe.scheduler.add_noise(one[None], eps[None], at)
        said = pipe.unet(noisy, at, encoder_hidden_states=state[None]).sample
        wanted = {
            "epsilon": eps,
            "sample": one,
            "v_prediction": pipe.scheduler.get_velocity(one[None], eps[None], at)[0],
        }
        errors.append((said[0] - wanted[kind]).square().mean())
    return torch.stack(errors).mean()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_loss_and_its_gradient_equal_a_naive_reference(pipe, latents, states, kind):
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type=kind)
    loss = DenoisingLoss(pipe, name="it")
    assert (loss.target, loss.width, loss.preprocess.height) == ("sd15", 32, 16)
    mine, theirs = states.clone().requires_grad_(), states.clone().requires_grad_()
    value = loss.loss(latents, mine, torch.Generator().manual_seed(5))
    expected = naive(pipe, kind, latents, theirs, torch.Generator().manual_seed(5))
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    value.backward()
    expected.backward()
    assert torch.allclose(mine.grad, theirs.grad, atol=1e-6, rtol=1e-3)
    assert all(parameter.grad is None for parameter in pipe.unet.parameters())


def test_latents_are_those_of_the_pipeline_without_chance(pipe):
    loss = DenoisingLoss(pipe, name="it")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    first, again = loss.latents(pixels), loss.latents(pixels)
    assert torch.equal(first, again)
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    with torch.no_grad():
        expected = pipe.vae.encode(image).latent_dist.mode() * pipe.vae.config.scaling_factor
    assert torch.allclose(first, expected, atol=1e-5)


def test_a_family_with_two_encoders_is_refused(pipes):
    with pytest.raises(ModelError, match="it is a pipeline of sdxl; the denoising loss knows sd15, sd2 and sdxl"):
        DenoisingLoss(pipes("sdxl"), name="it")
