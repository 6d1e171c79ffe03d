"""Every loss against its formula in float64, in value and in the gradient of every input, in strips of any size."""

import math
from collections import Counter

import pytest
import torch

from clipcond.train.losses.distillation import Teacher, distillation
from clipcond.train.losses.info_nce import info_nce
from clipcond.train.losses.matches import Matches
from clipcond.train.losses.siglip import siglip
from clipcond.train.losses.temperature import MAX_LOGIT_SCALE, clamp_logit_scale

from . import naive_losses as naive

PAIRS, WIDTH = 7, 5


def unit(count, seed, width=WIDTH):
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, width, generator=draw, dtype=torch.float64), dim=1)


def matches(extra_images=0, extra_texts=0):
    """Captions (two of some images), and a group of some."""
    captions = torch.tensor([[0, -1], [1, 2], [1, -1], [3, -1], [4, 0], [5, -1], [6, 5]])
    groups = torch.tensor([[-1], [-1], [7], [7], [-1], [-1], [-1]])
    drawn = torch.tensor([0, 2, 1, 3, 4, 5, 6])
    images = torch.cat([captions, groups], dim=1)
    texts = torch.stack([drawn, drawn, groups[:, 0].where(groups[:, 0] >= 0, torch.tensor(-2))], dim=1)
    return Matches(
        images=torch.cat([images, torch.tensor([[2, -1, -1]]).expand(extra_images, 3)]),
        texts=torch.cat([texts, torch.tensor([[5, 5, -2]]).expand(extra_texts, 3)]),
    )


INPUTS = {"images": unit(PAIRS, 1), "texts": unit(PAIRS, 2), "logit_scale": torch.tensor(2.5, dtype=torch.float64)}
EXTRA = {"extra_images": unit(2, 3), "extra_texts": unit(4, 4)}
BIAS = {"logit_bias": torch.tensor(-3.0, dtype=torch.float64)}
CASES = {
    "pairs alone": ({}, {}),
    "ids that mask": ({}, {"matches": matches()}),
    "ids that count": ({}, {"matches": matches(), "positives": "count"}),
    "hard negatives": (EXTRA, {}),
    "texts alone are hard": ({"extra_texts": EXTRA["extra_texts"]}, {}),
    "all at once, masked": (EXTRA, {"matches": matches(2, 4)}),
    "all at once, counted": (EXTRA, {"matches": matches(2, 4), "positives": "count"}),
}


def compare(loss, reference, tensors, settings, *, chunk_size, dtype=torch.float64, tolerance=1e-11):
    mine = {name: value.clone().to(dtype).requires_grad_() for name, value in tensors.items()}
    theirs = {name: value.clone().requires_grad_() for name, value in tensors.items()}
    value, expected = loss(**mine, **settings, chunk_size=chunk_size), reference(**theirs, **settings)
    (3 * value).backward()
    (3 * expected).backward()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=tolerance, abs=tolerance)
    for name, here in mine.items():
        there = theirs[name].grad
        assert there.abs().max() > 1e-3, name
        assert here.grad.dtype == dtype
        assert (here.grad.double() - there).norm() <= tolerance * 10 * there.norm(), name


@pytest.mark.parametrize("chunk_size", [2, 3, None])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("case", CASES)
def test_info_nce_is_its_formula(case, smoothing, chunk_size):
    extra, settings = CASES[case]
    settings = {**settings, "label_smoothing": smoothing}
    compare(info_nce, naive.info_nce, {**INPUTS, **extra}, settings, chunk_size=chunk_size)


@pytest.mark.parametrize("chunk_size", [2, None])
@pytest.mark.parametrize("case", CASES)
def test_siglip_is_its_formula(case, chunk_size):
    extra, settings = CASES[case]
    compare(siglip, naive.siglip, {**INPUTS, **BIAS, **extra}, settings, chunk_size=chunk_size)


@pytest.mark.parametrize("chunk_size", [2, None])
@pytest.mark.parametrize("count", [1, 2])
def test_distillation_is_its_formula(count, chunk_size):
    teachers = [Teacher(unit(PAIRS, 10, 4), unit(PAIRS, 11, 4), 20.0), Teacher(unit(PAIRS, 12), unit(PAIRS, 13), 5.0)]
    compare(distillation, naive.distillation, INPUTS, {"teachers": teachers[:count]}, chunk_size=chunk_size)


def test_a_student_that_agrees_with_its_teacher_has_no_loss():
    images, texts = INPUTS["images"], INPUTS["texts"]
    scale = torch.tensor(math.log(100.0), dtype=torch.float64, requires_grad=True)
    value = distillation(images, texts, scale, [Teacher(images, texts)])
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-12)
    assert float(scale.grad) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("chunk_size", [2, None])
def test_float32_stays_within_its_precision(chunk_size):
    settings = {"dtype": torch.float32, "tolerance": 1e-6, "chunk_size": chunk_size}
    compare(info_nce, naive.info_nce, INPUTS, {"label_smoothing": 0.1}, **settings)
    compare(siglip, naive.siglip, {**INPUTS, **BIAS}, {}, **settings)


def test_bfloat16_features_are_compared_in_float32():
    images, texts, scale = (INPUTS[name].to(torch.bfloat16) for name in ("images", "texts", "logit_scale"))
    value = info_nce(images, texts, scale)
    assert value.dtype == torch.float32
    assert torch.equal(value, info_nce(images.float(), texts.float(), scale.float()))
    assert siglip(images, texts, scale, scale).dtype == torch.float32


@pytest.mark.parametrize("chunk_size", [1, None])
def test_it_is_symmetric_and_finite_at_the_largest_scale(chunk_size):
    images, texts = INPUTS["images"].float(), INPUTS["texts"].float()
    scale = torch.tensor(MAX_LOGIT_SCALE, requires_grad=True)
    forth, back = (info_nce(*pair, scale, chunk_size=chunk_size) for pair in ((images, texts), (texts, images)))
    assert float(forth.detach()) == pytest.approx(float(back.detach()), rel=1e-6)
    opposite = images.clone().requires_grad_()
    info_nce(opposite, -images, scale, chunk_size=chunk_size).backward()  # exp(100) overflows float32
    assert torch.isfinite(opposite.grad).all()
    assert torch.isfinite(scale.grad)


@pytest.mark.parametrize("loss", [info_nce, lambda *a, **k: siglip(*a, torch.tensor(-10.0), **k)])
def test_no_matrix_of_pairs_is_allocated(loss):
    count, width, chunk_size = 2048, 8, 16
    images, texts = unit(count, 1, width).float().requires_grad_(), unit(count, 2, width).float().requires_grad_()
    largest = Counter()

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for each in torch.utils._pytree.tree_leaves(out):
                if isinstance(each, torch.Tensor):
                    largest[str(func)] = max(largest[str(func)], each.numel())
            return out

    with Watch():
        loss(images, texts, torch.tensor(3.0, requires_grad=True), chunk_size=chunk_size).backward()
    assert max(largest.values()) == chunk_size * count


def test_the_temperature_stays_between_a_hundredth_and_one():
    for given, expected in ((9.0, math.log(100)), (-1.0, 0.0), (2.0, 2.0)):
        scale = torch.nn.Parameter(torch.tensor(given))
        clamp_logit_scale(scale)
        assert float(scale.detach()) == pytest.approx(expected)
        assert scale.requires_grad


def test_a_batch_of_one_caption_alone_has_no_loss_and_no_nan():
    images = unit(4, 0).float().requires_grad_()
    one = torch.zeros(4, 1, dtype=torch.int64)
    loss = info_nce(images, images.detach(), torch.tensor(2.0), matches=Matches(images=one, texts=one))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert images.grad.abs().max() < 1e-6
