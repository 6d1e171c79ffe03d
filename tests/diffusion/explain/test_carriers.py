"""The way of a phrase through another one's token states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.explain.carriers import Exchange, carriers, exchanges
from clipcond.diffusion.explain.settings import ExplainSettings
from clipcond.diffusion.explain.texts import explained_texts


@pytest.mark.parametrize(("own", "other", "found"), [(0.1, 0.9, {0: 1}), (0.4, 0.9, {}), (0.1, 0.4, {})])
def test_a_phrase_acts_through_another_one_alone(own: float, other: float, found: dict[int, int]) -> None:
    effect = torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(0))
    whole = torch.ones(4, 2, 2)
    made = [Exchange(0, 0, {}), Exchange(0, 1, {}), Exchange(1, 1, {})]
    predicted = torch.stack([whole + own * effect, whole + other * effect, whole + effect])
    assert carriers(made, whole, {0: whole + effect, 1: whole + effect}, predicted) == found
    assert carriers([], whole, {}, predicted[:0]) == {}


@pytest.mark.parametrize(
    ("family", "places", "pairs"),
    [("sd15", [3, 80], 3), ("sdxl", [3], 3), ("sd3", [3, 79], 4), ("flux", [2], 4)],
)
def test_only_the_states_of_the_phrase_are_exchanged(
    family: str, places: list[int], pairs: int, pipes: Callable[[str], Any]
) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    settings = ExplainSettings(phrases=("fox", "snow"))
    negative = "blurry, " * 40 if family == "sd15" else None  # two chunks: the prompt is repeated
    texts = explained_texts(conditioner, "a red fox snow", negative, settings, guided=negative is not None)
    text = texts.parts[0]
    made = list(exchanges(text, texts.spans, conditioner.pipeline.layout, texts.chunks))
    assert len(made) == pairs, "itself and later ones; T5 looks both ways"
    own = next(each for each in made if each.of == each.by == 0)
    changed = (own.text["prompt_embeds"] != text.whole["prompt_embeds"]).any(dim=1).nonzero().flatten().tolist()
    assert changed == places
    torch.testing.assert_close(own.text["prompt_embeds"][changed], text.masked[0]["prompt_embeds"][changed])
