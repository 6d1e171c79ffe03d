"""Views: what of a picture the model sees, in the pixels, the scores, the header and the key of the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ramps import ramp

from clipcond.cli import main
from clipcond.encode.embedding_cache import EmbeddingCache
from clipcond.images.preprocess import Preprocess, View
from clipcond.rerank.ranking import rerank
from clipcond.rerank.scorer import Scorer

STATED = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
SQUASH = Preprocess(height=224, width=224, policy="squash", **STATED)  # type: ignore[arg-type]
VIEWS: tuple[View, ...] = ("crop", "pad", "tiles")


@pytest.fixture(scope="module")
def scorers(dual_folder: Path) -> dict[str, Scorer]:
    return {view: Scorer.load(str(dual_folder), device="cpu", view=view) for view in VIEWS}


@pytest.mark.parametrize(
    ("width", "height", "view", "means", "middle"),
    [
        (300, 600, "crop", (111.942, 133.942, 128.923), (150, 44, 194)),
        (300, 600, "pad", (55.982, 57.598, 63.081), (151, 45, 196)),
        (640, 427, "crop", (139.888, 110.469, 126.101), (65, 214, 23)),
        (640, 427, "pad", (76.353, 73.482, 85.416), (65, 216, 25)),
        (1024, 1024, "crop", (127.571, 127.571, 127.577), (22, 22, 3)),
        (1024, 1024, "tiles", (127.571, 127.571, 127.577), (22, 22, 3)),
    ],
)
def test_views_of_any_model_match_the_published_vectors(
    width: int, height: int, view: View, means: tuple[float, ...], middle: tuple[int, ...]
) -> None:
    (pixels,) = SQUASH.with_view(view).crops(ramp(width, height)).astype(int)
    assert np.allclose(pixels.mean(axis=(0, 1)), means, atol=0.01)
    assert np.abs(pixels[112, 112] - middle).max() <= 1


def test_a_picture_of_the_models_size_on_one_side_is_padded_too() -> None:
    (pixels,) = SQUASH.with_view("pad").crops(Image.new("RGB", (224, 150), "white"))
    assert [int(pixels[row, 0, 0]) for row in (0, 36, 37, 186, 187)] == [0, 0, 255, 255, 0]


@pytest.mark.parametrize(("size", "count"), [((300, 600), 2), ((600, 300), 2), ((500, 400), 2), ((90, 1000), 12)])
def test_tiles_cover_the_picture_from_end_to_end(size: tuple[int, int], count: int) -> None:
    tiles = SQUASH.with_view("tiles")
    crops = tiles.crops(ramp(*size))
    assert crops.shape == (count, 224, 224, 3)
    assert tiles.share_seen(*size) == 1.0
    wide, high = tiles.resized(*size)
    whole = np.asarray(ramp(*size).resize((wide, high), Image.Resampling.BICUBIC))
    assert np.array_equal(crops[0], whole[:224, :224])
    assert np.array_equal(crops[-1], whole[high - 224 :, wide - 224 :])


def test_a_strip_has_so_many_tiles_and_no_more() -> None:
    tiles = Preprocess(height=8, width=8, policy="tiles", **STATED)  # type: ignore[arg-type]
    assert tiles.crops(ramp(4, 400)).shape == (16, 8, 8, 3)
    assert tiles.share_seen(4, 400) == pytest.approx(0.16)


def test_a_model_keeps_its_own_details_where_the_view_is_its_own() -> None:
    own = Preprocess(height=8, width=8, policy="longest", fill=9, **STATED)  # type: ignore[arg-type]
    assert own.with_view("pad") is own
    assert own.with_view("crop").fill == 0


def test_a_view_changes_the_score_the_header_and_the_key(scorers: dict[str, Scorer], tmp_path: Path) -> None:
    halves = ramp(40, 80)
    halves.paste("red", (0, 0, 40, 20))
    halves.save(tmp_path / "tall.png")
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "square.png")
    paths = sorted(tmp_path.glob("*.png"))
    cache = EmbeddingCache(tmp_path / "cache.sqlite")
    found = {view: rerank(paths, "x", scorer=scorer, cache=cache) for view, scorer in scorers.items()}
    assert [ranking.embedded for ranking in found.values()] == [2, 2, 2], "no view takes what another remembered"
    tall = {view: next(row for row in ranking.rows if row.path.name == "tall.png") for view, ranking in found.items()}
    square = {next(row.score for row in each.rows if row.path.name == "square.png") for each in found.values()}
    assert len({row.score for row in tall.values()}) == 3
    assert len(square) == 1, "of a square all views see the same"
    assert [row.share_seen for row in tall.values()] == [0.5, 1.0, 1.0]
    headers = [each.header.preprocessing for each in found.values() if each.header]
    assert headers == [
        "32×32 centre crop, bicubic",
        "32×32 padded, bicubic",
        "32×32 tiles (the mean of their vectors), bicubic",
    ]
    again = rerank(paths, "x", scorer=scorers["tiles"], cache=cache)
    assert (again.embedded, again.rows) == (0, found["tiles"].rows)
    cache.close()


def test_a_vector_of_tiles_is_the_mean_of_its_tiles_whatever_the_batches(scorers: dict[str, Scorer]) -> None:
    tower = scorers["tiles"].dual.image
    pictures = [ramp(40, 80), ramp(64, 64), ramp(200, 33)]
    vectors = tower.embed(pictures, batch_size=2)
    for picture, vector in zip(pictures, vectors, strict=True):
        mean = tower.embed_pixels(tower.preprocess.crops(picture)).mean(dim=0)
        assert torch.allclose(vector, torch.nn.functional.normalize(mean, dim=0), atol=1e-6)
    assert torch.allclose(vectors, tower.embed(pictures, batch_size=32), atol=1e-6)


def test_the_table_shows_the_share_that_is_seen_and_the_command_names_the_views(
    tmp_path: Path, dual_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("clipcond.cli.rerank_run.on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    ramp(40, 80).save(tmp_path / "tall.png")
    arguments = ["rerank", str(tmp_path), "--prompt", "x", "--model", str(dual_folder), "--no-cache"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert " 50%" in out
    assert "--view pad or tiles show all" in out
    assert main([*arguments, "--view", "pad"]) == 0
    out = capsys.readouterr().out
    assert "32×32 padded, bicubic" in out
    assert "seen" not in out
    assert main(["rerank", "x", "--view", "zoom"]) == 2
    assert "error: --view is zoom; expected one of crop, pad, tiles" in capsys.readouterr().err
