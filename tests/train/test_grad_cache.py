import math

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from clipcond.train.grad_cache import CachedFeatures
from clipcond.train.losses.info_nce import info_nce
from clipcond.train.losses.siglip import siglip

CPU = torch.device("cpu")


class Tower(nn.Module):
    """Two layers with dropout in training mode."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(
            nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.4), nn.Linear(16, 8), nn.Dropout(0.2)
        ).double()

    def forward(self, x):
        return normalize(self.layers(x), dim=-1)


def gradients(loss, cached, *, freeze=False):
    images, texts = Tower(1), Tower(2)
    images.requires_grad_(not freeze)
    scale = nn.Parameter(torch.tensor(math.log(20.0), dtype=torch.float64))
    draw = torch.Generator().manual_seed(3)
    given = [torch.randn(10, 6, generator=draw, dtype=torch.float64) for _ in range(2)]
    torch.manual_seed(4)
    if cached:
        features = [
            CachedFeatures(lambda part, t=tower, x=x: t(x[part]), 10, micro_batch=cached, device=CPU)
            for tower, x in zip((images, texts), given, strict=True)
        ]
        loss(features[0].values, features[1].values, scale).backward()
        after = torch.rand(1)
        for each in features:
            each.backward()
    else:  # the whole graph at once, encoded in the same parts so that the same numbers are drawn
        whole = [torch.cat([t(part) for part in x.split(4)]) for t, x in zip((images, texts), given, strict=True)]
        loss(*whole, scale).backward()
        after = torch.rand(1)
    return [p.grad for p in (*images.parameters(), *texts.parameters(), scale)], after, torch.rand(1)


@pytest.mark.parametrize(
    "loss",
    [info_nce, lambda i, t, s: siglip(i, t, s, torch.tensor(-3.0)), lambda i, t, s: info_nce(i, t, s, chunk_size=3)],
)
def test_gradients_are_those_of_the_whole_graph_dropout_included(loss):
    cached, after, then = gradients(loss, 4)
    whole, expected, expected_then = gradients(loss, None)
    for here, there in zip(cached, whole, strict=True):
        assert there.abs().max() > 1e-4
        assert (here - there).norm() <= 1e-10 * there.norm()
    assert torch.equal(after, expected)
    assert torch.equal(then, expected_then), "replaying leaves the generator where it was"


def test_without_replay_dropout_would_spoil_the_gradients(monkeypatch):
    monkeypatch.setattr("clipcond.train.grad_cache._Random.restore", lambda self: None)
    cached, *_ = gradients(info_nce, 4)
    whole, *_ = gradients(info_nce, None)
    assert any((here - there).norm() > 0.1 * there.norm() for here, there in zip(cached, whole, strict=True))


def test_a_frozen_tower_is_encoded_once():
    calls = []

    def encode(part):
        calls.append(part)
        return torch.ones(part.stop - part.start, 2)

    features = CachedFeatures(encode, 5, micro_batch=2, device=CPU)
    assert not features.values.requires_grad
    features.backward()
    assert [(part.start, part.stop) for part in calls] == [(0, 2), (2, 4), (4, 5)]


def test_a_frozen_image_tower_leaves_the_rest_its_gradients():
    cached, *_ = gradients(info_nce, 4, freeze=True)
    whole, *_ = gradients(info_nce, None, freeze=True)
    assert cached[0] is whole[0] is None
    assert (cached[-2] - whole[-2]).norm() <= 1e-10 * whole[-2].norm()
