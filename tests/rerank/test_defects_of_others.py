"""Defects found in other scorers and rankers, each with a test that shows that clipcond does not have it.

Those that a ranking as a whole shows are tested here; `ELSEWHERE` names the tests of the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipcond.encode.image import ImageTower, Normalisation
from clipcond.images.preprocess import OPENAI_MEAN, OPENAI_STD, Preprocess
from clipcond.prompt.tokenizer import EOS
from clipcond.rerank.pairs import read_pairs
from clipcond.rerank.ranking import rank_pictures, rerank
from clipcond.rerank.scorer import Scorer
from clipcond.rerank.settings import Selection, parse_threshold

TESTS = Path(__file__).parents[1]
ELSEWHERE = {
    # pictures
    "imscore's own preprocessing on tensors drifts": "images/test_preprocess.py::test_pixels_match_published_vectors",
    "palettes resized by nearest neighbour": "images/test_preprocess.py::test_palettes_are_converted_before_the_resize",
    "alpha dropped without a background": "images/test_colour.py::test_transparency_is_put_on_white",
    "16-bit greys clipped": "images/test_colour.py::test_16_bit_greys_are_divided",
    "EXIF orientation ignored": "images/test_colour.py::test_orientation_is_applied",
    "HPSv2 leaves a picture of its own size unpadded": (
        "rerank/test_views.py::test_a_picture_of_the_models_size_on_one_side_is_padded_too"
    ),
    "one corrupt file ends the run": "hostile/test_pictures.py::test_each_bad_picture_is_a_row_and_the_others_are_scored",
    "clip-retrieval hung on a file": "rerank/test_ranking.py::test_a_pipe_and_a_file_that_vanished_are_rows",
    # texts
    "the end of a long prompt is dropped": "rerank/test_scorer.py::test_the_end_of_a_long_prompt_counts",
    "HPSv2 encodes a prompt for every picture": "rerank/test_scorer.py::test_each_distinct_text_is_encoded_once",
    "prompts scored with their syntax": "rerank/test_prompt_sources.py::test_syntax_is_stripped_from_both_prompts",
    # scores
    "torchmetrics averages before it clamps": "score/test_scales.py::test_clipscore_clamps_before_any_mean",
    "a head on a tower that it was not made for": (
        "score/test_aesthetic.py::test_a_head_refuses_a_tower_of_another_width_or_name"
    ),
    "scores without their scale": "rerank/test_named_scores.py::test_the_header_says_what_the_numbers_are",
    "an order that changes with the batch": (
        "rerank/test_same_everywhere.py::test_batches_move_no_score_beyond_the_stated_noise"
    ),
    # selection
    "diversity on raw scores puts the worst second": "score/test_selection.py::test_mmr_matches_published_vectors",
    "chained near-duplicates lose pictures": "score/test_duplicates.py::test_components_chain",
    "clip-retrieval looks a.txt up among a.jpg": (
        "rerank/test_prompt_sources.py::test_a_sidecar_where_the_picture_says_nothing"
    ),
    "captions paired by place": "images/test_sidecar.py::test_pictures_are_paired_by_name_never_by_position",
    "a file is overwritten": "rerank/test_moves.py::test_nothing_is_ever_overwritten",
    # metadata
    "weights of a last line taken for settings": "images/test_sidecar.py::test_weights_alone_stay_a_prompt",
    "a camera's Model tag raises": "images/metadata/test_comfyui.py::test_a_camera_in_the_exif_model_is_no_graph",
    "metadata without bounds": "images/metadata/test_reading.py::test_what_is_too_large_is_refused",
    # cache
    "clip-retrieval loses all at a crash": (
        "encode/test_embedding_cache.py::test_kill_9_in_the_middle_of_writing_loses_nothing_that_was_put"
    ),
    "a changed file is taken for the old one": (
        "encode/test_embedding_cache.py::test_renamed_is_a_hit_touched_is_a_hit_and_changed_is_a_miss"
    ),
    # reports and search
    "a bare mean": "score/test_statistics.py::test_an_interval_holds_its_mean_and_is_as_wide_as_theory_says",
    "rclip's scores grow with the terms of a query": (
        "score/test_zero_shot.py::test_scores_do_not_grow_with_the_number_or_size_of_terms"
    ),
    "clip-interrogator's best over chunks are not the best of all": (
        "score/test_zero_shot.py::test_the_k_best_over_chunks_are_the_k_best_over_all"
    ),
}


@pytest.mark.parametrize("place", ELSEWHERE.values(), ids=[*ELSEWHERE])
def test_the_test_of_each_other_defect_is_there(place: str) -> None:
    file, name = place.split("::")
    assert f"\ndef {name}(" in (TESTS / file).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def scorer(dual_folder: Path) -> Scorer:
    return Scorer.load(str(dual_folder), device="cpu")


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str], Path]:
    def saved(name: str) -> Path:
        """A picture whose pixels depend on its name."""
        draw = np.random.default_rng(sum(map(ord, name)))
        Image.fromarray(draw.integers(0, 255, (40, 32, 3), dtype=np.uint8)).save(tmp_path / name)
        return tmp_path / name

    return saved


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pixels_are_scaled_once_and_not_to_near_black() -> None:
    """torchmetrics' CLIP-IQA divides by the data's range, and the processor by 255 again."""
    preprocess = Preprocess(height=8, width=8, mean=OPENAI_MEAN, std=OPENAI_STD)
    for level, expected in (
        (0, (-1.792263, -1.752097, -1.480220)),
        (128, (0.076336, 0.168897, 0.339949)),
        (255, (1.930336, 2.074884, 2.145897)),
    ):
        pixels = preprocess.pixels(Image.new("RGB", (9, 9), (level,) * 3))
        values = Normalisation(preprocess)(pixels[None], torch.device("cpu"))[0, :, 4, 4]
        assert values.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_missing_file_gets_no_score_of_another(save: Callable[[str], Path], scorer: Scorer, tmp_path: Path) -> None:
    """ImageReward scores the picture before it once more."""
    ranking = rerank([save("a.png"), tmp_path / "gone.png", save("c.png")], "a fox", scorer=scorer)
    gone = next(row for row in ranking.rows if row.path.name == "gone.png")
    assert (gone.score, dict(gone.scores), gone.error) == (None, {}, "no such file")
    assert len({row.score for row in ranking.scored}) == 2


def test_norms_and_products_are_not_taken_in_half_precision(dual_folder: Path) -> None:
    """clipscore's float16 turned a score of 0.86 into 2.53."""
    model = Scorer.load(str(dual_folder), device="cpu").dual.image
    half = ImageTower(model.model, model.preprocess, lambda pixels: 300 * model._forward(pixels).half())
    vectors = half.embed([Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")])
    assert vectors.dtype == torch.float32
    assert torch.allclose(vectors.norm(dim=1), torch.ones(2), atol=1e-6)


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def mini() -> Scorer:
    return Scorer.load("mini", device="cpu")


def test_a_prompt_that_just_fits_and_one_that_does_not_keep_their_end(mini: Scorer) -> None:
    """torchmetrics cuts the end token off: 27.40, 26.16 and 16.97 for 74, 75 and 76 repeated words."""
    rows: list[list[int]] = []
    pool = mini.dual.text.pool_rows
    sizes = {}
    for count in (74, 75, 76, 150, 151):
        (text,) = mini.texts([" ".join(["red"] * count)])
        sizes[count] = (text.content_tokens, text.chunks)
        assert np.linalg.norm(text.parts, axis=1) == pytest.approx(1)
    assert sizes == {74: (74, 1), 75: (75, 1), 76: (76, 2), 150: (150, 2), 151: (151, 3)}
    fresh = Scorer(mini.dual)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini.dual.text, "pool_rows", lambda given: rows.extend(r.ids for r in given) or pool(given))
        fresh.texts([" ".join(["red"] * 76)])
    assert len(rows) == 2
    assert all(row[-1] == EOS for row in rows)
    vectors = mini.texts([" ".join(["red"] * count) for count in (74, 75)])
    assert float(vectors[0].vector @ vectors[1].vector) > 0.99


@pytest.mark.parametrize("place", [19, 20, 34, 35, 52, 63, 64, 74, 75, 120])
def test_every_word_of_a_long_prompt_counts(place: int, scorer: Scorer) -> None:
    """infinity stops at 20 tokens, ImageReward at 35, Chinese-CLIP at 52, SigLIP at 64, most at 77, all of them silently."""
    words = ["fox"] * 130
    one, other = scorer.texts([" ".join(words), " ".join([*words[:place], "sea", *words[place + 1 :]])])
    assert (one.content_tokens, other.content_tokens) == (130, 130)
    assert np.abs(one.vector - other.vector).max() > 1e-6


def test_the_lost_syntax_costs_no_token(save: Callable[[str], Path], scorer: Scorer) -> None:
    """`(red fox:1.2), <lora:foo:0.8>` has 18 tokens as it stands and 2 that say something."""
    path = save("a.png")
    path.with_suffix(".txt").write_text("(red fox:1.2), <lora:foo:0.8>")
    (row,) = rerank([path], scorer=scorer).rows
    assert (row.prompt, row.content_tokens) == ("red fox", 2)


# ── selection and pairing ────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_that_passes_is_a_result_and_no_crash(save: Callable[[str], Path], scorer: Scorer) -> None:
    """ImageReward's filter raises, and so does clip-retrieval's."""
    selection = Selection(thresholds=(parse_threshold("cosine>=0.99"),), diversity=0.5, duplicates=0.94, top=3)
    paths = [save("a.png"), save("b.png")]
    ranking = rerank(paths, "a fox", scorer=scorer, threshold=0.99)
    assert (len(ranking.scored), ranking.kept) == (2, ())
    with_all = rank_pictures(read_pairs(_table(paths)), scorer=scorer, selection=selection)
    assert (len(with_all.scored), with_all.kept) == (2, ())


def test_more_than_there_are_is_all_there_are(save: Callable[[str], Path], scorer: Scorer) -> None:
    ranking = rerank([save("a.png"), save("b.png")], "a fox", scorer=scorer, top=9)
    assert len(ranking.kept) == 2


def test_pictures_and_prompts_are_paired_by_name(save: Callable[[str], Path], scorer: Scorer, tmp_path: Path) -> None:
    """Taited zips two sorted listings: (cat, dog) against (cat, elk), and one Thumbs.db shifts all."""
    for name in ("cat.png", "dog.png"):
        save(name)
    (tmp_path / "cat.txt").write_text("a cat")
    (tmp_path / "elk.txt").write_text("an elk")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    rows = {row.path.name: row for row in rerank(sorted(tmp_path.glob("*.png")), scorer=scorer).rows}
    assert rows["cat.png"].prompt == "a cat"
    assert (rows["dog.png"].prompt, rows["dog.png"].stage) == (None, "prompt")


def test_one_prompt_for_many_pictures_and_many_for_one(save: Callable[[str], Path], scorer: Scorer) -> None:
    paths = [save("a.png"), save("b.png")]
    table = paths[0].with_name("pairs.jsonl")
    pairs = [(paths[0], "a fox"), (paths[1], "a fox"), (paths[1], "the sea")]
    table.write_text("".join(json.dumps({"image": path.name, "prompt": text}) + "\n" for path, text in pairs))
    found = rank_pictures(read_pairs(table), scorer=scorer)
    assert sorted((row.path.name, row.prompt) for row in found.scored) == [
        ("a.png", "a fox"), ("b.png", "a fox"), ("b.png", "the sea"),
    ]  # fmt: skip


def test_a_file_name_is_no_prompt(save: Callable[[str], Path], scorer: Scorer) -> None:
    """T2I-CompBench takes the name up to the first `_`."""
    (row,) = rerank([save("a red fox_000001.png")], scorer=scorer).rows
    assert (row.prompt, row.score) == (None, None)


# ── models and memory ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_model_is_loaded_once_and_no_gradient_is_kept(save: Callable[[str], Path], scorer: Scorer) -> None:
    """HPSv2 loads its checkpoint at every call; HPSv3 and clip-retrieval kept what gradients need."""
    before = scorer.dual.image.model
    ranking = rerank([save("a.png")], "a fox", scorer=scorer)
    assert scorer.dual.image.model is before
    assert not scorer.dual.image.embed_pixels(np.zeros((1, 32, 32, 3), np.uint8)).requires_grad
    assert all(isinstance(vector, np.ndarray) for vector in ranking.vectors.values())


def test_a_batch_is_one_forward(save: Callable[[str], Path], dual_folder: Path) -> None:
    """t2v_metrics loops over single pictures, whatever the batch size."""
    sizes: list[int] = []
    own = Scorer.load(str(dual_folder), device="cpu")
    forward = own.dual.image._forward
    own.dual.image._forward = lambda pixels: sizes.append(len(pixels)) or forward(pixels)  # type: ignore[func-returns-value]
    rerank([save(f"{n}.png") for n in range(7)], "a fox", scorer=own, batch_size=3)
    assert sizes == [3, 3, 1]


def test_the_noise_is_always_stated(save: Callable[[str], Path], scorer: Scorer) -> None:
    header = rerank([save("a.png")], "a fox", scorer=scorer).header
    assert header is not None
    assert header.noise > 0
    assert {"cosine", "clipscore"} <= header.column_noise.keys()


def _table(paths: list[Path]) -> Path:
    table = paths[0].with_name("pairs.csv")
    table.write_text("image,prompt\n" + "".join(f"{path.name},a fox\n" for path in paths))
    return table
