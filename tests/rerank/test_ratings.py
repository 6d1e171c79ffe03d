"""Ratings of people: read, put to the pictures they are of, compared with scores, fitted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipcond.cli import main
from clipcond.errors import ConfigError, DataError
from clipcond.rerank.ranking import rerank
from clipcond.rerank.ratings import agreements, fit_ratings, rated_rows, read_ratings
from clipcond.rerank.scorer import Scorer


@pytest.fixture(scope="module")
def scorer(dual_folder: Path) -> Scorer:
    return Scorer.load(str(dual_folder), device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number in range(24):
        pixels = noise.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(tmp_path / "pictures" / f"{number:02}.png")
    return tmp_path


def table(folder: Path, lines: list[str], header: str = "image,rating") -> Path:
    (folder / "ratings.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder / "ratings.csv"


def test_a_score_agrees_with_itself_and_not_with_its_reverse(folder: Path, scorer: Scorer) -> None:
    ranking = rerank(sorted((folder / "pictures").glob("*.png")), "a fox", scorer=scorer)
    for sign, accuracy in ((1, 1.0), (-1, 0.0)):
        path = table(folder, [f"{row.path.name},{sign * (row.cosine or 0)}" for row in ranking.scored])
        found = agreements(rated_rows(ranking, read_ratings(path)))
        assert list(found) == ["score", "cosine", "clipscore"]
        assert found["cosine"].preference_accuracy.value == accuracy
        assert found["cosine"].spearman.value == pytest.approx(sign)


def test_several_raters_count_by_their_mean_and_have_an_alpha(folder: Path, scorer: Scorer) -> None:
    ranking = rerank(sorted((folder / "pictures").glob("*.png")), "a fox", scorer=scorer)
    path = table(folder, ["00.png,keep", "00.png,delete", "pictures/01.png,1", "01.png,yes", "gone.png,1"])
    rated = rated_rows(ranking, read_ratings(path))
    by_name = dict(zip([row.path.name for row in rated.rows], rated.ratings, strict=True))
    assert (by_name, rated.unknown) == ({"00.png": 0.5, "01.png": 1.0}, 1)
    assert rated.alpha is not None


def test_a_head_is_fitted_written_and_taken(
    folder: Path, dual_folder: Path, scorer: Scorer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    ranking = rerank(sorted((folder / "pictures").glob("*.png")), "a fox", scorer=scorer)
    taste = np.random.default_rng(1).normal(size=24)
    liked = {path.name: float(vector @ taste) for path, vector in ranking.vectors.items()}
    table(folder, [f"{name},{value}" for name, value in liked.items()])
    assert fit_ratings(ranking, rated_rows(ranking, read_ratings(folder / "ratings.csv"))).accuracy.value > 0.7
    call = ["rerank", "pictures", "-p", "a fox", "--model", str(dual_folder)]
    assert main([*call, "--fit", "ratings.csv", "--fit-to", "mine.safetensors", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rated"], report["fit"]["head"]) == (24, "mine.safetensors")
    assert (
        main([*call, "--aesthetic", "mine.safetensors", "--score", "aesthetic", "--agreement", "ratings.csv", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["agreement"]["aesthetic"]["preference_accuracy"]["value"] > 0.8
    monkeypatch.setattr("clipcond.cli.rerank_run.on_terminal", lambda: True)
    assert main([*call, "--agreement", "ratings.csv"]) == 0
    assert "24 rated" in capsys.readouterr().out
    assert main([*call, "--fit", "ratings.csv", "--fit-to", "mine.safetensors"]) == 3
    assert "mine.safetensors is there already" in capsys.readouterr().err
    assert main([*call, "--fit", "ratings.csv"]) == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["00.png,good"], "row 1: rating is 'good'; expected a picture and a number, or keep and delete"),
        ([",1"], "row 1: image is empty"),
        (["00.png,nan"], "row 1: rating is 'nan'"),
    ],
)
def test_a_rating_that_is_none(lines: list[str], message: str, folder: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_ratings(table(folder, lines))


def test_ratings_that_say_nothing(folder: Path, scorer: Scorer) -> None:
    ranking = rerank(sorted((folder / "pictures").glob("*.png")), "a fox", scorer=scorer)
    with pytest.raises(DataError, match="rates none of the pictures"):
        rated_rows(ranking, read_ratings(table(folder, ["gone.png,1"])))
    with pytest.raises(ConfigError, match="rated differently"):
        agreements(rated_rows(ranking, read_ratings(table(folder, ["00.png,1", "01.png,1"]))))
