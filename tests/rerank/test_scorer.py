"""Cosine and CLIPScore over whole prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipcond.encode.rows import TokenSequence
from clipcond.errors import ModelError, ShapeError
from clipcond.prompt.tokenizer import BOS, EOS
from clipcond.rerank.scorer import Scorer
from clipcond.runtime.torchvision_repair import repair


@pytest.fixture(scope="module")
def scorer(dual_folder: Path) -> Scorer:
    return Scorer.load(str(dual_folder), device="cpu")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.new("RGB", (40, 32), colour) for colour in ("red", "lime", "blue")]


def reference(folder: Path, pictures: list[Image.Image], ids: list[list[int]]) -> np.ndarray:
    """Cosines by open_clip alone: a row per row of content ids, a column per picture."""
    repair()
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = torch.zeros(len(ids), 77, dtype=torch.int64)
    for number, row in enumerate(ids):
        tokens[number, : len(row) + 2] = torch.tensor([BOS, *row, EOS])
    with torch.inference_mode():
        seen = model.eval().encode_image(torch.stack([transform(picture) for picture in pictures]), normalize=True)
        found: np.ndarray = (model.encode_text(tokens, normalize=True) @ seen.T).numpy()
    return found


def test_equal_to_open_clip_for_a_short_prompt(scorer: Scorer, dual_folder: Path, pictures: list[Image.Image]) -> None:
    import open_clip

    ids = open_clip.tokenize("A Red  Fox &amp; a cat")[0].tolist()
    content = ids[1 : ids.index(EOS)]
    scores = scorer.score(pictures, "A Red  Fox &amp; a cat")
    assert np.allclose(scores.cosine, reference(dual_folder, pictures, [content])[0], atol=2e-6)
    assert (scores.content_tokens, scores.chunks) == (len(content), 1)
    assert np.ptp(scores.cosine) > 1e-3


@pytest.mark.parametrize(("words", "sizes"), [(75, [75]), (76, [75, 1]), (100, [75, 25]), (150, [75, 75])])
def test_long_prompts_are_the_mean_of_their_chunks_by_content(
    words: int, sizes: list[int], scorer: Scorer, dual_folder: Path, pictures: list[Image.Image]
) -> None:
    scores = scorer.score(pictures, "cat " * words)
    each = reference(dual_folder, pictures, [[2368] * size for size in sizes])
    assert np.allclose(scores.cosine, np.array(sizes) / sum(sizes) @ each, atol=2e-6)
    assert (scores.content_tokens, scores.chunks) == (words, len(sizes))


def test_the_end_of_a_long_prompt_counts(scorer: Scorer, pictures: list[Image.Image]) -> None:
    start = "a picture of " * 30
    one, other = (scorer.score(pictures, start + end).cosine for end in ("a fox", "the sea at night"))
    assert np.abs(one - other).max() > 1e-4


def test_an_empty_text_has_one_chunk(scorer: Scorer, pictures: list[Image.Image]) -> None:
    scores = scorer.score(pictures, "")
    assert (scores.content_tokens, scores.chunks) == (0, 1)
    assert np.isfinite(scores.cosine).all()


def test_each_distinct_text_is_encoded_once(dual_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer.load(str(dual_folder), device="cpu")
    pool, counted = scorer.dual.text.pool_rows, []

    def counting(rows: list[TokenSequence]) -> object:
        counted.append(len(rows))
        return pool(rows)

    monkeypatch.setattr(scorer.dual.text, "pool_rows", counting)
    texts = scorer.texts(["a fox", "cat " * 80, "a fox", "a sea"], batch_size=3)
    assert [text.text[:5] for text in texts] == ["a fox", "cat c", "a fox", "a sea"]
    assert counted == [3, 1]
    scorer.texts(["a sea", "a fox"])
    assert counted == [3, 1]


def test_batches_of_texts_do_not_change_them(dual_folder: Path) -> None:
    prompts = ["a fox", "cat " * 80, "the sea at night, " * 9]
    together = Scorer.load(str(dual_folder), device="cpu").texts(prompts)
    for prompt, text in zip(prompts, together, strict=True):
        alone = Scorer.load(str(dual_folder), device="cpu").texts([prompt])[0]
        assert np.abs(alone.vector - text.vector).max() < 1e-6


def test_vectors_can_be_passed_in_place_of_pictures(scorer: Scorer, pictures: list[Image.Image]) -> None:
    vectors = scorer.dual.image.embed(pictures)
    assert scorer.score(vectors, "a fox").cosine.tolist() == scorer.score(pictures, "a fox").cosine.tolist()


def test_vectors_of_another_model_are_refused(scorer: Scorer) -> None:
    with pytest.raises(ShapeError, match=r"vectors are \(2, 5\); expected \(N, 24\) of the same model"):
        scorer.score(torch.zeros(2, 5), "a fox")


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such folder"):
        Scorer.load(str(tmp_path / "nothing"))
