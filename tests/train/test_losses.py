import math

import pytest
import torch

from clipcond.train.losses import MAX_LOGIT_SCALE, clamp_logit_scale, info_nce


def naive(images, texts, logit_scale):
    """The formula, term by term."""
    count, total = len(images), 0.0
    for i in range(count):
        row = [torch.exp(logit_scale.exp() * images[i] @ texts[j]) for j in range(count)]
        column = [torch.exp(logit_scale.exp() * images[j] @ texts[i]) for j in range(count)]
        total = total - (torch.log(row[i] / sum(row)) + torch.log(column[i] / sum(column))) / (2 * count)
    return total


def example(dtype, scale=2.5):
    draw = torch.Generator().manual_seed(1)
    rows = [
        torch.nn.functional.normalize(torch.randn(7, 5, generator=draw, dtype=torch.float64), dim=1) for _ in range(2)
    ]
    return [x.to(dtype).requires_grad_() for x in (*rows, torch.tensor(scale, dtype=torch.float64))]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_value_and_gradients_equal_the_naive_formula(dtype, tolerance):
    mine, theirs = example(dtype), example(torch.float64)
    value, expected = info_nce(*mine), naive(*theirs)
    value.backward()
    expected.backward()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), abs=tolerance * 10)
    for here, there in zip(mine, theirs, strict=True):
        assert here.grad.abs().max() > 1e-3
        assert torch.allclose(here.grad.double(), there.grad, atol=tolerance * 10, rtol=1e-4)


def test_it_is_symmetric_and_finite_at_the_largest_scale():
    images, texts, _ = example(torch.float32)
    scale = torch.tensor(MAX_LOGIT_SCALE)
    assert info_nce(images, texts, scale) == info_nce(texts, images, scale)
    assert torch.isfinite(info_nce(images, -images, scale))


def test_bfloat16_features_are_compared_in_float32():
    images, texts, scale = (x.detach() for x in example(torch.bfloat16))
    value = info_nce(images, texts, scale)
    assert value.dtype == torch.float32
    assert torch.equal(value, info_nce(images.float(), texts.float(), scale.float()))


def test_the_temperature_stays_between_a_hundredth_and_one():
    for given, expected in ((9.0, math.log(100)), (-1.0, 0.0), (2.0, 2.0)):
        scale = torch.nn.Parameter(torch.tensor(given))
        clamp_logit_scale(scale)
        assert float(scale.detach()) == pytest.approx(expected)
        assert scale.requires_grad


def test_equal_captions_of_a_batch_push_nothing_apart():
    images = torch.eye(3, dtype=torch.float64).requires_grad_(True)
    texts = torch.eye(3, dtype=torch.float64)[[0, 1, 1]]  # the second and the third image have one caption
    scale = torch.tensor(2.0, dtype=torch.float64)
    same = torch.tensor([[False, False, False], [False, False, True], [False, True, False]])
    loss = info_nce(images, texts, scale, same)
    loss.backward()
    logits = (scale.exp() * images @ texts.T).detach()
    forth = [logits[0].exp().sum(), logits[1, :2].exp().sum(), logits[2, [0, 2]].exp().sum()]
    back = [logits[:, 0].exp().sum(), logits[:2, 1].exp().sum(), logits[[0, 2], 2].exp().sum()]
    terms = [
        torch.log(row) + torch.log(column) - 2 * logits[n, n]
        for n, (row, column) in enumerate(zip(forth, back, strict=True))
    ]
    assert loss.item() == pytest.approx(float(sum(terms)) / 6, abs=1e-12)
    assert images.grad.isfinite().all()
    plain = images.detach().clone().requires_grad_(True)
    info_nce(plain, texts, scale).backward()
    assert not torch.equal(plain.grad, images.grad)


def test_a_batch_of_one_caption_alone_has_no_loss_and_no_nan():
    images = torch.nn.functional.normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    images.requires_grad_(True)
    everything = ~torch.eye(4, dtype=torch.bool)
    loss = info_nce(images, images.detach(), torch.tensor(2.0), everything)
    loss.backward()
    assert loss.item() == 0
    assert not images.grad.any()
