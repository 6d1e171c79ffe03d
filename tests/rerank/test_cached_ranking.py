"""Embeddings of earlier runs in a ranking: nothing is embedded twice, and nothing else changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcond.encode.embedding_cache import EmbeddingCache
from clipcond.images import preprocess
from clipcond.prompt.infotext import format_infotext
from clipcond.rerank.ranking import rerank
from clipcond.rerank.scorer import Scorer
from clipcond.workflows.rerank_actions import ActionOptions, act_on


@pytest.fixture(scope="module")
def scorer(dual_folder: Path) -> Scorer:
    return Scorer.load(str(dual_folder), device="cpu")


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path / "cache" / "embeddings.sqlite")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for number, colour in enumerate(("red", "lime", "blue", "white")):
        info = PngInfo()
        info.add_text(
            "parameters", format_infotext(f"a {colour} square", "bad", {"Steps": 1, "Seed": 2, "Size": "1x1"})
        )
        Image.new("RGB", (40 + number, 30), colour).save(tmp_path / f"{colour}.png", pnginfo=info)
    (tmp_path / "bad.png").write_text("no picture")
    return sorted(tmp_path.glob("*.png"))


@pytest.mark.parametrize("prompt", ["a fox", None])
def test_a_second_run_embeds_nothing_and_gives_the_same_rows(
    prompt: str | None, files: list[Path], scorer: Scorer, cache: EmbeddingCache
) -> None:
    without = rerank(files, prompt, scorer=scorer)
    first = rerank(files, prompt, scorer=scorer, cache=cache, batch_size=3)
    second = rerank(files, prompt, scorer=scorer, cache=cache, batch_size=1)
    assert (without.embedded, first.embedded, second.embedded) == (4, 4, 0)
    assert first.rows == second.rows
    assert [row.path for row in without.rows] == [row.path for row in first.rows]


def test_a_touched_or_renamed_file_is_known_and_a_changed_one_is_not(
    files: list[Path], scorer: Scorer, cache: EmbeddingCache
) -> None:
    rerank(files, "a fox", scorer=scorer, cache=cache)
    red = next(path for path in files if path.stem == "red")
    os.utime(red, (1, 1))
    red.rename(red.with_name("other.png"))
    assert rerank([red.with_name("other.png")], "a fox", scorer=scorer, cache=cache).embedded == 0
    Image.new("RGB", (40, 30), "black").save(red.with_name("other.png"))
    assert rerank([red.with_name("other.png")], "a fox", scorer=scorer, cache=cache).embedded == 1


def test_another_version_of_preprocessing_shares_nothing(
    files: list[Path], scorer: Scorer, cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    rerank(files, "a fox", scorer=scorer, cache=cache)
    monkeypatch.setattr("clipcond.encode.embedding_space.VERSION", preprocess.VERSION + 1)
    assert rerank(files, "a fox", scorer=scorer, cache=cache).embedded == 4


def test_a_file_that_was_damaged_since_is_an_error_again(
    files: list[Path], scorer: Scorer, cache: EmbeddingCache
) -> None:
    rerank(files, "a fox", scorer=scorer, cache=cache)
    files[1].write_bytes(b"")
    errors = rerank(files, "a fox", scorer=scorer, cache=cache).errors
    assert {row.path.name for row in errors} == {"bad.png", files[1].name}


def test_text_behind_the_pixels_is_found_in_a_second_run_too(
    tmp_path: Path, scorer: Scorer, cache: EmbeddingCache
) -> None:
    info = PngInfo()
    text = format_infotext("a red fox", "", {"Steps": 1, "Seed": 2, "Size": "1x1"})
    info.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"tEXt") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(data[:start] + data[end:last] + data[start:end] + data[last:])
    for embedded in (1, 0):
        ranking = rerank([tmp_path / "a.png"], scorer=scorer, cache=cache)
        assert (ranking.embedded, ranking.rows[0].prompt) == (embedded, "a red fox")


@pytest.mark.parametrize("what", ["score", "rating"])
def test_a_written_score_leaves_the_embedding_known_to_every_model(
    what: str, files: list[Path], scorer: Scorer, dual_folder: Path
) -> None:
    Image.new("RGB", (30, 30), "navy").save(files[0].with_name("photo.jpg"))
    paths = [*files, files[0].with_name("photo.jpg")]
    padded = Scorer.load(str(dual_folder), device="cpu", view="pad")
    cache = EmbeddingCache()  # the one that the command uses
    before = rerank(paths, "a fox", scorer=scorer, cache=cache)
    rerank(paths, "a fox", scorer=padded, cache=cache)
    bytes_before = {path: path.read_bytes() for path in paths}
    outcome = act_on(before, ActionOptions(write_back=what))  # type: ignore[arg-type]
    assert len(outcome.written) == (5 if what == "rating" else 4)
    assert all(path.read_bytes() != bytes_before[path] for path in outcome.written)
    for each in (scorer, padded):
        assert rerank(paths, "a fox", scorer=each, cache=cache).embedded == 0
    assert rerank(paths, "a fox", scorer=scorer, cache=cache).rows == before.rows
    cache.close()


def test_a_dry_run_and_no_cache_touch_no_cache(
    files: list[Path], scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranking = rerank(files, "a fox", scorer=scorer)

    def never(*_: object) -> None:
        raise AssertionError("the cache was opened")

    monkeypatch.setattr(EmbeddingCache, "__init__", never)
    act_on(ranking, ActionOptions(write_back="rating", dry_run=True))
    act_on(ranking, ActionOptions(write_back="rating"), cache=False)
