"""One order and one set of scores whatever the batches, the workers and the order of the files; and rows as Parquet."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipcond.cli import main
from clipcond.errors import OptionsError
from clipcond.rerank import embedding
from clipcond.rerank.columns import NOISE
from clipcond.rerank.output import check_ranking_file, write_ranking
from clipcond.rerank.ranking import Ranking, rerank
from clipcond.rerank.scorer import Scorer
from clipcond.score.ties import noise_floor, tied_ranks

BATCHES = (1, 2, 3, 7, 16, 64)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of many sizes; two have the same pixels, two are almost alike."""
    folder = tmp_path_factory.mktemp("many")
    draw = np.random.default_rng(0)
    for number in range(22):
        size = (int(draw.integers(20, 90)), int(draw.integers(20, 90)), 3)
        Image.fromarray(draw.integers(0, 255, size, dtype=np.uint8)).save(folder / f"{number:02}.png")
    first = Image.open(folder / "00.png").convert("RGB")
    first.save(folder / "same.png")
    first.putpixel((0, 0), (0, 0, 0))
    first.save(folder / "near.png")
    return sorted(folder.glob("*.png"))


def scored(ranking: Ranking) -> dict[str, float]:
    return {row.path.name: row.score or 0.0 for row in ranking.scored}


@pytest.mark.parametrize("spec", ["dual", "mini"])
def test_batches_move_no_score_beyond_the_stated_noise(spec: str, pictures: list[Path], dual_folder: Path) -> None:
    scorer = Scorer.load(str(dual_folder) if spec == "dual" else "mini", device="cpu")
    rankings = [rerank(pictures, "a red circle", scorer=scorer, batch_size=size) for size in BATCHES]
    runs = [scored(ranking) for ranking in rankings]
    measured = noise_floor([[run[path.name] for path in pictures] for run in runs])
    assert measured <= 1e-6 + 1e-12 < NOISE
    assert len({tuple(run) for run in runs}) == 1, "the same order"
    header = rankings[0].header
    assert header is not None
    assert header.noise == NOISE, "which the ranking states"
    assert runs[0]["00.png"] == runs[0]["same.png"]
    assert all(row.tied for row in rankings[0].rows if row.path.name in ("00.png", "same.png"))


def test_scores_one_last_digit_apart_are_tied() -> None:
    for least in np.round(np.linspace(-1, 1, 4001), 6):  # whose difference is seldom 1e-6 itself
        assert all(tied_ranks([least, round(least + 1e-6, 6)], ["a", "b"], noise=NOISE).tied)
    assert not any(tied_ranks([0.5, 0.500002], ["a", "b"], noise=NOISE).tied)


def test_workers_and_the_order_of_the_files_change_no_bit(
    pictures: list[Path], dual_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer.load(str(dual_folder), device="cpu")
    expected = rerank(pictures, "a fox", scorer=scorer)
    for count in (1, 3, 8):
        monkeypatch.setattr(embedding, "workers", lambda count=count: count)
        found = rerank(pictures, "a fox", scorer=scorer)
        assert found.rows == expected.rows
        assert all(np.array_equal(found.vectors[path], expected.vectors[path]) for path in pictures)
    shuffled = list(pictures)
    random.Random(1).shuffle(shuffled)
    again = rerank(shuffled, "a fox", scorer=scorer)
    assert list(scored(again)) == list(scored(expected))
    assert max(abs(scored(again)[name] - score) for name, score in scored(expected).items()) <= NOISE


def test_parquet_holds_every_row_and_what_the_numbers_are(
    pictures: list[Path], dual_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    scorer = Scorer.load(str(dual_folder), device="cpu")
    (tmp_path / "bad.png").write_text("no picture")
    ranking = rerank([*pictures[:5], tmp_path / "bad.png"], "a füchs", scorer=scorer, top=2)
    table = parquet.read_table(write_ranking(tmp_path / "rows.parquet", ranking))
    rows = table.to_pylist()
    assert [row["path"] for row in rows] == [str(row.path) for row in ranking.rows]
    assert [row["score"] for row in rows] == [row.score for row in ranking.rows]
    assert (rows[0]["prompt"], rows[0]["kept"], rows[-1]["kept"]) == ("a füchs", True, False)
    assert rows[-1]["error"] == "is not a picture in a format that can be read"
    about = json.loads(table.schema.metadata[b"clipcond"])
    assert (about["model"], about["noise"], about["dtype"]) == (str(dual_folder), NOISE, "float32")
    assert about["scales"]["cosine"]


def test_parquet_without_pyarrow_is_one_line_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("clipcond.rerank.output.import_module", missing)
    with pytest.raises(OptionsError, match=r"Parquet needs pyarrow, which is not installed: pip install pyarrow"):
        check_ranking_file(tmp_path / "rows.parquet")
    assert main(["rerank", "x", "--prompt", "x", "--csv", str(tmp_path / "rows.parquet")]) == 2
    assert "Parquet needs pyarrow" in capsys.readouterr().err


def test_pyarrow_is_not_needed_for_the_other_forms(pictures: list[Path], dual_folder: Path, tmp_path: Path) -> None:
    ranking = rerank(pictures[:3], "x", scorer=Scorer.load(str(dual_folder), device="cpu"))
    for ending in ("csv", "tsv", "jsonl", "json"):
        assert write_ranking(tmp_path / f"rows.{ending}", ranking).stat().st_size > 100
