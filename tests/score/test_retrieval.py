"""Recall at k, against sorting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipcond.errors import ModelError
from clipcond.score.retrieval import retrieval


def unit(rows: object) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def one_to_one(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(count), np.arange(count)


def naive(scores: np.ndarray, right: tuple[np.ndarray, np.ndarray]) -> dict[int, float]:
    """Recall by sorting, for scores without ties: the best right answer's place in each row."""
    places = []
    for row in range(len(scores)):
        order = np.argsort(-scores[row])
        mine = {j for i, j in zip(*right, strict=True) if i == row}
        wrong_before = 0
        for answer in order:
            if answer in mine:
                break
            wrong_before += 1
        places.append(wrong_before)
    return {k: float(np.mean([place < k for place in places])) for k in (1, 5, 10)}


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_several_captions_an_image_against_sorting(block: int) -> None:
    draw = np.random.default_rng(0)
    images, texts = unit(draw.normal(size=(20, 3))), unit(draw.normal(size=(45, 3)))
    owner = np.concatenate([np.arange(20), draw.integers(0, 20, 25)])
    right = (owner, np.arange(45))
    scores = (images @ texts.T).numpy()
    found = retrieval(images, texts, right, block=block)
    assert found.image_to_text == pytest.approx(naive(scores, right), abs=1e-6)
    assert found.text_to_image == pytest.approx(naive(scores.T, right[::-1]), abs=1e-6)
    assert (found.images, found.texts) == (20, 45)


def test_a_collapsed_model_finds_nothing() -> None:
    found = retrieval(torch.ones(12, 2), torch.ones(12, 2), one_to_one(12))
    assert found.image_to_text == found.text_to_image == {1: 0.0, 5: 0.0, 10: 0.0}


def test_a_perfect_model_finds_everything() -> None:
    rows = torch.eye(12)
    found = retrieval(rows, rows, one_to_one(12))
    assert found.to_dict() == {
        "image_to_text": {"R@1": 1.0, "R@5": 1.0, "R@10": 1.0},
        "text_to_image": {"R@1": 1.0, "R@5": 1.0, "R@10": 1.0},
        "images": 12,
        "texts": 12,
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_vector_that_is_not_finite_is_an_error_and_not_found(value: float, tower: str) -> None:
    sides = {"image": torch.eye(12), "text": torch.eye(12)}
    sides[tower][3, 4] = value
    with pytest.raises(ModelError, match=f"^{tower} vectors hold values that are not finite"):
        retrieval(sides["image"], sides["text"], one_to_one(12))
