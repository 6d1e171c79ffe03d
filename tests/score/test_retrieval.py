"""Recall at k, against sorting."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from clipcond.errors import ModelError
from clipcond.score.retrieval import chance_recall, retrieval


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
        "chance": {
            side: {"R@1": 0.083333, "R@5": 0.416667, "R@10": 0.833333} for side in ("image_to_text", "text_to_image")
        },
    }


def test_k_stays_below_the_number_of_answers() -> None:
    right = (np.array([0, 0, 0, 1, 2, 3]), np.arange(6))
    found = retrieval(torch.eye(4), torch.eye(6)[:, :4], right)
    assert set(found.image_to_text) == set(found.chance["image_to_text"]) == {1, 5}
    assert set(found.text_to_image) == set(found.chance["text_to_image"]) == {1}
    alone = retrieval(torch.eye(1), torch.eye(1), one_to_one(1))
    assert (alone.image_to_text, alone.chance["image_to_text"]) == ({1: 1.0}, {1: 1.0})


def test_chance_is_what_all_orders_find_on_average() -> None:
    right = np.array([1, 3, 2])
    for k in (1, 2, 4):
        found = []
        for m in right:
            orders = [*permutations(range(5))]
            found.append(np.mean([any(answer < m for answer in order[:k]) for order in orders]))
        assert chance_recall(right, 5, [k])[k] == pytest.approx(np.mean(found), abs=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_vector_that_is_not_finite_is_an_error_and_not_found(value: float, tower: str) -> None:
    sides = {"image": torch.eye(12), "text": torch.eye(12)}
    sides[tower][3, 4] = value
    with pytest.raises(ModelError, match=f"^{tower} vectors hold values that are not finite"):
        retrieval(sides["image"], sides["text"], one_to_one(12))
