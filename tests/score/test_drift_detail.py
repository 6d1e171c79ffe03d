"""Drift place by place and prompt by prompt, against the sums of `measure_drift` and against planted changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clipcond.score.drift import measure_drift
from clipcond.score.drift_detail import drift_detail

ENDS = torch.tensor([1, 3, 6, 9])  # the last row has no padding


def states(seed: int) -> Tensor:
    return torch.randn(4, 10, 8, generator=torch.Generator().manual_seed(seed))


def test_places_and_prompts_add_up_to_the_kinds() -> None:
    before, after = states(0), states(0) + 0.3 * states(1)
    drift, detail = measure_drift(before, after, ENDS), drift_detail(before, after, ENDS)
    padding = drift.kinds["padding"]
    assert sum(place.rows for place in detail.padding) == padding.positions
    mean = sum(place.rows * place.cosine for place in detail.padding) / padding.positions
    assert mean == pytest.approx(padding.cosine)
    assert min(place.least_cosine for place in detail.padding) == pytest.approx(padding.least_cosine)
    ratio = sum(place.rows * place.norm_ratio for place in detail.padding) / padding.positions
    assert ratio == pytest.approx(padding.norm_ratio)
    assert [place.at for place in detail.text] == list(range(10))
    assert [place.rows for place in detail.text] == [4, 4, 3, 3, 2, 2, 2, 1, 1, 1]
    assert detail.text[0].cosine == pytest.approx(drift.kinds["bos"].cosine)
    words = [
        (prompt.words, int(end) - 1)
        for prompt, end in zip(detail.prompts, ENDS, strict=True)
        if prompt.words is not None
    ]
    assert sum(mean * count for mean, count in words) / sum(count for _, count in words) == pytest.approx(
        drift.kinds["words"].cosine
    )
    assert sum(prompt.eos or 0 for prompt in detail.prompts) / 4 == pytest.approx(drift.kinds["eos"].cosine)


def test_the_word_that_turned_most_is_found() -> None:
    before, after = states(0), states(0)
    after = after.clone()
    after[2, 4] *= -1
    after[2, 8] *= -1  # padding, which is no word
    first, second, third, last = drift_detail(before, after, ENDS).prompts
    assert (third.worst, third.worst_cosine) == (4, pytest.approx(-1))
    assert third.padding == pytest.approx(1 / 3)
    assert (first.words, first.worst) == (None, 1)
    assert (second.words, second.eos) == (1, 1)
    assert last.padding is None


def test_a_target_of_the_pooled_vector_alone() -> None:
    pooled = torch.randn(4, 5)
    detail = drift_detail(None, None, ENDS, pooled=(pooled, pooled * torch.tensor([1.0, -1, 1, 1])[:, None]))
    assert (detail.text, detail.padding) == ((), ())
    assert [prompt.pooled for prompt in detail.prompts] == pytest.approx([1, -1, 1, 1])
    assert all(prompt.words is prompt.worst is None for prompt in detail.prompts)
