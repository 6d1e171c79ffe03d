"""Scores, thresholds and tables of ratings typed wrongly: one line, the exit code of wrong usage, and no model loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from clipcond.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for name in "abcdef":
        Image.new("RGB", (8, 8)).save(tmp_path / "run" / f"{name}.png")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("clipcond.rerank.scorer.load_dual", never)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    first, *rest = err.splitlines()
    assert all(line == "clipcond rerank --help shows the options" for line in rest if not line.startswith("hint: "))
    assert first.startswith("error: ")
    assert len(first) < 300
    return first.removeprefix("error: ")


@pytest.mark.parametrize(
    ("score", "line"),
    [
        ("", "--score is empty; expected a column such as clipscore"),
        ("cosine,", "--score is empty; expected a column such as clipscore"),
        ("cosin", "no column 'cosin'; did you mean cosine?"),
        ("COSINE", "no column 'COSINE'; did you mean cosine?"),
        ("hpsv3", "no column 'hpsv3'; expected one of cosine, clipscore,"),
        ("cosine+", "--score 'cosine+', at its end: expected a column, a number or ("),
        ("2**cosine", "--score '2**cosine', at '*': expected a column, a number or ("),
        ("0.5cosine", "--score '0.5cosine', at '0': 0 is not understood here; a weight is followed by *"),
        ("0,5*cosine", "--score: 0,5 has a comma, which parts two scores; write 0.5"),
        ("cosine/2", "--score 'cosine/2', at '/': / is not understood here"),
        ("(cosine", "--score '(cosine', at '(': this parenthesis is not closed"),
        ("cosine - cosine", "--score 'cosine - cosine', at 'cosine': cosine weighs 0 in all"),
        ("cosine clipscore", "--score 'cosine clipscore', at 'clipscore': expected +, - or * before clipscore"),
        ("\x1b[31m", "--score '␛[31m', at '␛': ␛ is not understood here"),
        ("x" * 5000, "--score: the score expression has 5000 characters"),
        ("(" * 300 + "cosine", "--score '(((("),
        ("probability", "probability needs --distractors FILE"),
        ("0.5*cosine + 0.5*aesthetic", "aesthetic needs --aesthetic FILE"),
    ],
)
def test_a_score(folder: Path, score: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerank", "run", "-p", "x", "--score", score]) == 2
    assert said(capsys).startswith(line)


@pytest.mark.parametrize(
    ("threshold", "line"),
    [
        ("", "--threshold '': expected COLUMN>=VALUE or a cosine"),
        ("cosine>=x", "--threshold 'cosine>=x': expected COLUMN>=VALUE or a cosine"),
        ("cosine>0,2", "--threshold 'cosine>0,2': expected COLUMN>=VALUE or a cosine; write decimals with a point"),
        ("cosine=0.2", "--threshold 'cosine=0.2': expected COLUMN>=VALUE or a cosine"),
        ("cosine>=1e999", "a threshold of inf bounds nothing; expected a finite number"),
        ("2", "threshold is 2; expected a cosine from -1 to 1, or COLUMN>=VALUE"),
        ("nan", "threshold is nan; expected a cosine from -1 to 1"),
        ("foo>=1", "no column 'foo'; expected one of cosine,"),
        ("Clipscore>=1", "no column 'Clipscore'; did you mean clipscore?"),
    ],
)
def test_a_threshold(folder: Path, threshold: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerank", "run", "-p", "x", "--threshold", threshold]) == 2
    assert said(capsys).startswith(line)


@pytest.mark.parametrize("option", ["--agreement", "--fit"])
@pytest.mark.parametrize(
    ("table", "line"),
    [
        (None, "cannot read ratings.csv: No such file or directory"),
        ("", "ratings.csv holds no rows"),
        (
            "picture2,rating\na,1\n",
            "ratings.csv has no column for the picture (it has picture2, rating); name one image",
        ),
        ("image,much\na,1\n", "ratings.csv has no column for the rating (it has image, much); name one rating"),
        (
            "image,rating\na.png,good\n",
            "ratings.csv, row 1: rating is 'good'; expected a picture and a number, or keep",
        ),
        ("image,rating\na.png,nan\n", "ratings.csv, row 1: rating is 'nan'"),
        ("image,rating\na.png,3\nb.png,3\n", "every rating of ratings.csv is 3; rate some better and some worse"),
        (
            "image,rating\n" + "".join(f"z{n}.png,{n}\n" for n in range(9)),
            "ratings.csv rates none of the pictures; name them as they are on the disk",
        ),
    ],
)
def test_a_table_of_ratings(
    folder: Path, option: str, table: str | None, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if table is not None:
        Path("ratings.csv").write_text(table)
    more = ["--fit-to", "head.safetensors"] if option == "--fit" else []
    assert main(["rerank", "run", "-p", "x", option, "ratings.csv", *more]) == 3
    assert said(capsys).startswith(line)
    assert not Path("head.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--fit", "few.csv", "--fit-to", "h.safetensors"], 3, "few.csv rates 2 pictures; a fit needs 10 or more"),
        (["--fit", "few.csv"], 2, "--fit RATINGS and --fit-to HEAD.safetensors go together"),
        (["--fit", "few.csv", "--fit-to", "h.pth"], 2, "h.pth would hold safetensors; give it a name that ends in"),
        (["--fit", "few.csv", "--fit-to", "no/h.safetensors"], 3, "there is no folder no for h.safetensors; make it"),
        (["--csv", "no/scores.csv"], 3, "there is no folder no for scores.csv; make it, or name another"),
        (["--html", "no/sheet.html"], 3, "there is no folder no for sheet.html; make it, or name another"),
        (["--csv", "scores.xlsx"], 2, "scores.xlsx ends in .xlsx; expected one of .csv, .tsv, .jsonl, .json, .parquet"),
    ],
)
def test_a_file_to_write(
    folder: Path, arguments: list[str], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("few.csv").write_text("image,rating\na.png,1\nb.png,2\n")
    assert main(["rerank", "run", "-p", "x", *arguments]) == code
    assert said(capsys).startswith(line)
