"""The change of a denoiser's prediction, for every family."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from clipcond.diffusion.denoiser_change import denoiser_changes
from clipcond.errors import ConfigError


def moved(module: Any, size: float) -> Any:
    other = copy.deepcopy(module)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=draw) * weight.abs().mean())
    return other


@pytest.mark.parametrize(
    ("family", "part"),
    [("sd15", "text_encoder"), ("sd2", "text_encoder"), ("sdxl", "text_encoder"), ("sdxl", "text_encoder_2"),
     ("sd3", "text_encoder_2"), ("flux", "text_encoder")],
)  # fmt: skip
def test_the_same_encoder_changes_nothing_and_a_farther_one_more(
    family: str, part: str, fresh: Callable[[str], Any]
) -> None:
    pipe = fresh(family)
    own = getattr(pipe, part)
    found = [
        denoiser_changes(pipe, ["a red fox"], part=part, before=own, after=moved(own, size), steps=2)
        for size in (0.0, 0.1, 1.0)
    ]
    assert [each.change for each in found[0]] == [0, 0]
    assert all(0 < near.change < far.change for near, far in zip(found[1], found[2], strict=True))
    assert found[1][0].timestep > found[1][1].timestep
    assert getattr(pipe, part) is own


def test_steps_are_one_or_more(fresh: Callable[[str], Any]) -> None:
    pipe = fresh("sd15")
    with pytest.raises(ConfigError, match="steps is 0, expected 1 or more"):
        denoiser_changes(pipe, ["x"], part="text_encoder", before=pipe.text_encoder, after=pipe.text_encoder, steps=0)


@pytest.mark.parametrize(
    ("family", "part", "pooled"), [("sd15", "text_encoder", False), ("flux", "text_encoder", True)]
)
def test_how_much_there_is_to_lose(family: str, part: str, pooled: bool, fresh: Callable[[str], Any]) -> None:
    """Without its words the prediction changes; in Flux, where CLIP gives the pooled vector alone, that has its own share."""
    pipe = fresh(family)
    own = getattr(pipe, part)
    far = moved(own, 1.0)
    for found in denoiser_changes(pipe, ["", "a red fox"], part=part, before=own, after=far, steps=1):
        assert found.text is not None
        assert found.text > 0
        assert (found.pooled is not None) == pooled
        assert found.pooled is None or 0 < found.pooled < found.text
    (nothing,) = denoiser_changes(pipe, [""], part=part, before=own, after=own, steps=1)
    assert (nothing.change, nothing.text, nothing.pooled) == (0, None, None)
