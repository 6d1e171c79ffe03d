"""The prompt that a picture is scored against: given, from its metadata, from the file beside it, hidden in its pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcond.prompt.infotext import format_infotext
from clipcond.rerank.pairing import Pairing
from clipcond.rerank.ranking import rank_pictures, rerank
from clipcond.rerank.scorer import Scorer
from clipcond.rerank.settings import Scoring, parse_scores

SETTINGS = {"Steps": 1, "Seed": 2, "Size": "1x1"}


@pytest.fixture(scope="module")
def scorer(dual_folder: Path) -> Scorer:
    return Scorer.load(str(dual_folder), device="cpu")


def picture(path: Path, prompt: str = "", negative: str = "") -> Path:
    info = PngInfo()
    if prompt:
        info.add_text("parameters", format_infotext(prompt, negative, SETTINGS))
    Image.new("RGB", (20, 20), "red").save(path, pnginfo=info)
    return path


def test_metadata_comes_before_the_sidecar_and_a_given_prompt_before_both(tmp_path: Path, scorer: Scorer) -> None:
    path = picture(tmp_path / "a.png", "a fox", "bad")
    path.with_suffix(".txt").write_text("the sea")
    (row,) = rerank([path], scorer=scorer).rows
    assert (row.prompt, row.negative_prompt, row.prompt_source) == ("a fox", "bad", "metadata (parameters)")
    (row,) = rerank([path], "a hill", scorer=scorer).rows
    assert (row.prompt, row.negative_prompt, row.prompt_source) == ("a hill", None, "given")


@pytest.mark.parametrize("name", ["a.txt", "a.caption"])
def test_a_sidecar_where_the_picture_says_nothing(name: str, tmp_path: Path, scorer: Scorer) -> None:
    path = picture(tmp_path / "a.png")
    (tmp_path / name).write_text("the sea")
    (row,) = rerank([path], scorer=scorer).rows
    assert (row.prompt, row.prompt_source) == ("the sea", f"sidecar ({name})")


def test_syntax_is_stripped_from_both_prompts(tmp_path: Path, scorer: Scorer) -> None:
    path = picture(tmp_path / "a.png", "(red fox:1.2), <lora:foo:0.8>", "((blurry))")
    (row,) = rerank([path], scorer=scorer).rows
    assert (row.prompt, row.content_tokens, row.negative_prompt) == ("red fox", 2, "blurry")


def test_a_picture_without_a_prompt_says_why(tmp_path: Path, scorer: Scorer) -> None:
    path = picture(tmp_path / "a.png")
    (row,) = rerank([path], scorer=scorer).rows
    assert row.stage == "prompt"
    assert (row.error or "").startswith("it carries no prompt")
    path.with_suffix(".txt").write_text(" ")
    assert rerank([path], scorer=scorer).rows[0].error == "a.txt is empty"


def test_scores_of_the_picture_alone_need_no_prompt(tmp_path: Path, scorer: Scorer) -> None:
    path = picture(tmp_path / "a.png")
    ranking = rank_pictures([Pairing(path=path)], scorer=scorer, scoring=Scoring(scores=parse_scores("iqa")))
    (row,) = ranking.rows
    assert (row.error, row.prompt, list(row.scores)) == (None, None, ["iqa", "z", "percentile"])
