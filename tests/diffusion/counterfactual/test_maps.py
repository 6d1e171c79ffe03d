"""The arithmetic of steered predictions, on numbers."""

from __future__ import annotations

import pytest
import torch

from clipcond.diffusion.counterfactual.maps import acting_places, effect_map, steered_prediction

SHAPES = [
    ((4, 8, 8), (1, 8, 8)),
    ((16, 12), (16, 1)),
]  # a picture's prediction, and Flux's patches in a row; their maps


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("shape", "places"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_identities_to_the_last_bit(shape: tuple[int, ...], places: tuple[int, ...], dtype: torch.dtype) -> None:
    whole, others = noise(*shape).to(dtype), noise(2, *shape, seed=1).to(dtype)
    shares = torch.rand(2, *places, generator=torch.Generator().manual_seed(2))
    everywhere = torch.ones(2, *places)
    assert torch.equal(steered_prediction(whole, others, torch.ones(2), shares), whole)
    one = steered_prediction(whole, others[:1], torch.zeros(1), everywhere[:1])
    assert torch.equal(one, others[0])
    assert torch.equal(steered_prediction(whole, others, torch.tensor([0.0, 1.0]), everywhere), others[0])
    assert torch.equal(steered_prediction(whole, others, torch.tensor([0.0, -1.0]), 0 * everywhere), whole)
    assert one.dtype == dtype


def test_phrases_in_different_places_do_not_know_of_one_another() -> None:
    whole, others = noise(4, 8, 8), noise(2, 4, 8, 8, seed=1)
    left = torch.zeros(1, 8, 8)
    left[:, :, :3] = 1
    right = torch.zeros(1, 8, 8)
    right[:, :, 5:] = 1
    weights = torch.tensor([-0.5, 0.25])
    both = steered_prediction(whole, others, weights, torch.stack([left, right]))
    for number, place in enumerate((left, right)):
        own = steered_prediction(whole, others[number : number + 1], weights[number : number + 1], place[None])
        assert torch.allclose(both * place, own * place, atol=1e-6)
    assert torch.equal(both[:, :, 3:5], whole[:, :, 3:5])


@pytest.mark.parametrize(("shape", "places"), SHAPES)
def test_above_1_no_place_gets_larger_than_it_was(shape: tuple[int, ...], places: tuple[int, ...]) -> None:
    whole, other = noise(*shape), noise(1, *shape, seed=1)
    made = steered_prediction(whole, other, torch.tensor([3.0]), torch.ones(1, *places))
    axis = 0 if len(shape) == 3 else -1
    plain = whole + 2 * (whole - other[0])
    size, before = made.norm(dim=axis, keepdim=True), whole.norm(dim=axis, keepdim=True)
    assert torch.allclose(size, torch.minimum(before, plain.norm(dim=axis, keepdim=True)), atol=1e-5)
    assert torch.allclose(made / size, plain / plain.norm(dim=axis, keepdim=True), atol=1e-5)
    assert torch.equal(steered_prediction(whole, other, torch.tensor([3.0]), torch.zeros(1, *places)), whole)


@pytest.mark.parametrize(("shape", "places"), SHAPES)
def test_places_are_the_same_on_either_side_of_guidance(shape: tuple[int, ...], places: tuple[int, ...]) -> None:
    difference = noise(*shape) * torch.linspace(0.01, 1, places[-2]).view(-1, 1)
    effect = effect_map(difference)
    assert effect.shape == places
    assert torch.allclose(effect.mean(), torch.tensor(1.0))
    shares = acting_places(effect)
    assert torch.allclose(acting_places(effect_map(7.5 * difference)), shares, atol=1e-6)
    assert 0 <= float(shares.min()) < float(shares.max()) == 1


def test_what_acts_everywhere_has_all_places_and_what_does_nothing_none() -> None:
    assert torch.equal(acting_places(torch.full((1, 4, 4), 3.0)), torch.ones(1, 4, 4))
    nothing = effect_map(torch.zeros(4, 4, 4))
    assert torch.equal(nothing, torch.zeros(1, 4, 4))
    assert torch.equal(acting_places(nothing), torch.zeros(1, 4, 4))
    steps = torch.tensor([0.0, 0.19, 0.2, 0.3, 0.4, 1.0, 1.0, 1.0])
    assert torch.allclose(acting_places(steps), torch.tensor([0.0, 0, 0, 0.5, 1, 1, 1, 1]), atol=1e-6)
