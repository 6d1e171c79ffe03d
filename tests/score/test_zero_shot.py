"""Zero-shot classes, the k best over chunks, arithmetic on vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipcond.encode.logits import LogitHead
from clipcond.errors import ConfigError, ShapeError
from clipcond.models.open_clip_folder import read_open_clip_folder
from clipcond.score.zero_shot import class_probabilities, classifier, combined, ensemble, nearest, top_k


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_an_ensemble_is_normalised_twice() -> None:
    assert ensemble([[1, 0], [0, 1]]) == pytest.approx([0.707107, 0.707107], abs=5e-7)
    assert ensemble([[10, 0], [0, 0.1]]) == pytest.approx([0.707107, 0.707107], abs=5e-7)


@given(st.integers(1, 6), st.integers(0, 999))
def test_an_ensemble_depends_on_directions_alone_in_any_order(count: int, seed: int) -> None:
    rows = noise(count, 8, seed=seed)
    sizes = np.exp(noise(count, 1, seed=seed + 1))
    vector = ensemble(rows)
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert ensemble(rows[::-1] * sizes[::-1]) == pytest.approx(vector, abs=1e-12)


def test_classes_with_different_numbers_of_texts_are_built_from_one_batch() -> None:
    texts = noise(5, 8)
    classes = classifier(texts, [0, 1, 0, 2, 1], 3)
    assert classes[0] == pytest.approx(ensemble(texts[[0, 2]]))
    assert classes[2] == pytest.approx(texts[3] / np.linalg.norm(texts[3]))


def test_a_classifier_equals_torch_code_of_the_usual_kind() -> None:
    texts, images = torch.from_numpy(noise(12, 16)), torch.from_numpy(noise(7, 16, seed=1))
    unit = torch.nn.functional.normalize(texts, dim=-1).reshape(4, 3, 16).mean(dim=1)
    weights = torch.nn.functional.normalize(unit, dim=-1)
    logits = 100 * torch.nn.functional.normalize(images, dim=-1) @ weights.T
    ours = class_probabilities(images, classifier(texts, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], 4))
    assert ours == pytest.approx(logits.softmax(dim=-1).numpy(), abs=1e-12)
    assert ours.sum(axis=1) == pytest.approx(1)


def test_a_classifier_equals_open_clips(dual_folder: Path) -> None:
    model = read_open_clip_folder(dual_folder).eval()
    import open_clip

    tokenizer = open_clip.SimpleTokenizer()
    names, templates = ["cat", "red fox", "dog"], [lambda c: f"a photo of a {c}.", lambda c: f"art of the {c}."]
    theirs = open_clip.build_zero_shot_classifier(model, tokenizer, names, templates, device="cpu")
    with torch.no_grad():
        texts = model.encode_text(tokenizer([template(name) for name in names for template in templates]))
    assert classifier(texts, [0, 0, 1, 1, 2, 2], 3) == pytest.approx(theirs.T.numpy(), abs=1e-6)


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 999))
def test_probabilities_do_not_depend_on_the_batch(count: int, classes: int, seed: int) -> None:
    images, weights = noise(count, 6, seed=seed), noise(classes, 6, seed=seed + 1)
    together = class_probabilities(images, weights, head=LogitHead(scale=50))
    alone = np.concatenate(
        [class_probabilities(images[row : row + 1], weights, head=LogitHead(scale=50)) for row in range(count)]
    )
    assert alone == pytest.approx(together, abs=1e-12)


def test_the_k_best_and_all_where_there_are_fewer() -> None:
    best = top_k([[0.1, 0.3, 0.2, 0.3]], 3)
    assert best.columns.tolist() == [[1, 3, 2]]  # of equals the first
    assert best.scores.tolist() == [[0.3, 0.3, 0.2]]
    assert top_k([[0.1, 0.3]], 9).columns.tolist() == [[1, 0]]


@pytest.mark.parametrize("sign", [1, -1])  # highest, and lowest by the opposite query
@given(st.integers(1, 25), st.integers(1, 30), st.integers(1, 8), st.integers(0, 99))
def test_the_k_best_over_chunks_are_the_k_best_over_all(sign: int, rows: int, block: int, k: int, seed: int) -> None:
    gallery = noise(rows, 4, seed=seed)[np.random.default_rng(seed).integers(0, rows, rows)]  # with equal rows
    queries = sign * noise(3, 4, seed=seed + 1)
    chunked, whole = nearest(queries, gallery, k, block=block), nearest(queries, gallery, k, block=1000)
    assert chunked.columns.tolist() == whole.columns.tolist()
    assert chunked.scores.tolist() == whole.scores.tolist()
    unit = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    cosines = queries / np.linalg.norm(queries, axis=1, keepdims=True) @ unit.T
    assert whole.columns.tolist() == top_k(np.round(cosines, 12), k).columns.tolist()


def test_a_gallery_may_be_half_precision_on_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "gallery.npy", np.eye(4, dtype=np.float16) * 3)
    gallery = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    assert nearest([[0, 0, 2, 1]], gallery, 2, block=3).columns.tolist() == [[2, 3]]
    assert nearest([[0, 0, 2, 1]], torch.eye(4).half(), 1).columns.tolist() == [[2]]
    assert nearest([[1, 0]], np.zeros((0, 2)), 3).columns.shape == (1, 0)


def test_the_aesthetic_shift_is_arithmetic_on_vectors() -> None:
    assert combined([[1, 0], [0, 1]], [1, 0.5]) == pytest.approx([0.894427, 0.447214], abs=5e-7)


@given(st.integers(1, 5), st.floats(0.01, 100), st.integers(0, 999))
def test_scores_do_not_grow_with_the_number_or_size_of_terms(count: int, size: float, seed: int) -> None:
    vectors, weights = (
        noise(count, 6, seed=seed),
        np.append(2.0, np.random.default_rng(seed).uniform(-0.3, 1, count - 1)),
    )
    direction = combined(vectors, weights)
    assert np.linalg.norm(direction) == pytest.approx(1)
    assert combined(vectors * size, weights * size) == pytest.approx(direction, abs=1e-9)
    twice = combined(np.tile(vectors, (2, 1)), np.tile(weights, 2))
    assert twice == pytest.approx(direction, abs=1e-9)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="the vectors cancel out: no direction is left"):
        combined([[1, 2], [2, 4]], [1, -1])
    with pytest.raises(ConfigError, match="the vectors cancel out"):
        ensemble(np.zeros((0, 4)))
    with pytest.raises(ConfigError, match="class 1 has no text; describe each class once or more"):
        classifier(np.eye(2), [0, 2], 3)
    with pytest.raises(ConfigError, match="classes: expected 2 numbers from 0 to 1, one for each text"):
        classifier(np.eye(2), [0, 2], 2)
    with pytest.raises(ShapeError, match=r"images: the shape is \(1, 3\); expected \(N, 2\)"):
        class_probabilities(np.ones((1, 3)), np.eye(2))
    with pytest.raises(ConfigError, match="classes: there is none; expected one or more"):
        class_probabilities(np.ones((1, 3)), np.zeros((0, 3)))
    with pytest.raises(ConfigError, match="gallery from row 2: row 1 is all zeros"):
        nearest([[1, 0]], np.array([[1.0, 0], [0, 0]]), 1, block=1)
    with pytest.raises(ConfigError, match="k is 0; expected 1 or more"):
        nearest([[1, 0]], np.eye(2), 0)
