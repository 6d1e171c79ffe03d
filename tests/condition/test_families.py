"""From the states of a family's encoders to one tensor, and the layers that they come from."""

from __future__ import annotations

import pytest
import torch

from clipcond.condition.families import LAYOUTS, assemble, layer
from clipcond.errors import ConfigError, ShapeError


def test_states_side_by_side_then_zeros_then_t5() -> None:
    left, right, behind = torch.ones(2, 3), torch.full((2, 4), 2.0), torch.full((5, 10), 3.0)
    out = assemble([left, right], behind, width=10)
    assert out.shape == (7, 10)
    assert out[0].tolist() == [1.0] * 3 + [2.0] * 4 + [0.0] * 3
    assert (out[2:] == 3).all()
    assert torch.equal(assemble([left], None), left)
    assert torch.equal(assemble([], behind), behind)


def test_the_dtype_is_that_of_the_pipeline_and_then_the_wider_one() -> None:
    left, behind = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.float16)
    assert assemble([left], None, dtype=torch.float16).dtype == torch.float16
    assert assemble([left], behind, dtype=torch.float16).dtype == torch.float16
    assert assemble([left], behind).dtype == torch.float32


@pytest.mark.parametrize(
    ("family", "skip", "expected"),
    [
        ("sd15", 0, (0, True)),  # A1111's 1: the last layer with its norm
        ("sd2", 1, (1, True)),  # A1111's 2: the penultimate, with the norm
        ("sdxl", 0, (1, False)),  # the penultimate without the norm
        ("refiner", 1, (2, False)),  # hidden_states[-3]
        ("sd3", 1, (2, False)),
        ("flux", 0, (0, True)),
    ],
)
def test_layers(family: str, skip: int, expected: tuple[int, bool]) -> None:
    assert layer(LAYOUTS[family], LAYOUTS[family].encoders[0], skip) == expected


def test_t5_gives_its_output_whatever_is_skipped_of_clip() -> None:
    assert layer(LAYOUTS["sd3"], "t5", 2) == (0, True)


def test_what_cannot_be_skipped_is_named() -> None:
    with pytest.raises(ConfigError, match="clip_skip is -1, expected 0 or more"):
        layer(LAYOUTS["sd15"], "clip_l", -1)
    with pytest.raises(ConfigError, match="clip_skip is 1, expected 0: this family takes no token states of CLIP"):
        layer(LAYOUTS["flux"], "clip_l", 1)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ShapeError, match="concat_width 1: axis T is 3, expected 2"):
        assemble([torch.ones(2, 3), torch.ones(3, 3)], None)
    with pytest.raises(ShapeError, match="concat_width: 3 wide together, expected 2 at most"):
        assemble([torch.ones(2, 3)], None, width=2)
    with pytest.raises(ShapeError, match="append_tokens: axis D is 4, expected 3"):
        assemble([torch.ones(2, 3)], torch.ones(2, 4))
    with pytest.raises(ShapeError, match="states: of no encoder"):
        assemble([], None)
