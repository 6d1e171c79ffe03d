"""`clipcond detect` as a user types it, rightly and wrongly."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest
from PIL import Image

from clipcond.cli import main
from clipcond.mini import world

LABELS = "a red circle,a blue star,a green cross"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("detect"), random.Random(1)
    for number, cell in enumerate(("top left", "center")):
        things = (
            world.Object(colour="red", shape="circle", cell=cell),
            world.Object(colour="blue", shape="star", cell="bottom right"),
        )
        world.render(world.Scene("gray", things), rng).save(root / f"{number}.png")
    (root / "labels.json").write_text(json.dumps({"round": ["a red circle"], "pointed": ["a blue star"]}))
    (root / "empty").mkdir()
    (root / "bad").mkdir()
    (root / "bad" / "a.png").write_text("no picture")
    return root


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_places_on_stdout_in_a_table_and_on_a_page(capsys, tmp_path: Path) -> None:
    page, table = tmp_path / "where.html", tmp_path / "boxes.csv"
    assert (
        main(["detect", ".", "-r", "-l", LABELS, "--min-score", "0.5", "--html", str(page), "--csv", str(table)]) == 0
    )
    shown = capsys.readouterr()
    rows = lines(shown.out)
    assert [row["path"] for row in rows] == ["0.png", "1.png", "bad/a.png"]
    assert [(each["label"], each["place"]) for each in rows[0]["found"]] == [
        ("a red circle", "top left"), ("a blue star", "bottom right"),
    ]  # fmt: skip
    assert (rows[0]["absent"], rows[1]["found"][0]["place"]) == (["a green cross"], "center")
    assert "is not a picture" in rows[2]["error"]
    assert f"wrote {page}" in shown.err
    assert "by patches" in page.read_text("utf-8")
    with table.open(encoding="utf-8", newline="") as file:
        first, *_, last = csv.DictReader(file)
    assert [first[key] for key in ("image", "label", "place")] == ["0.png", "a red circle", "top left"]
    assert [int(first[side]) for side in ("left", "top", "right", "bottom")] == rows[0]["found"][0]["box"]
    assert (last["image"], last["label"]) == ("bad/a.png", "")
    assert main(["detect", "0.png", "-l", LABELS, "--html", str(page)]) == 3
    assert "where.html is there already; name another file, or pass --overwrite" in capsys.readouterr().err
    assert main(["detect", "0.png", "-l", LABELS, "--html", str(page), "--overwrite"]) == 0


def test_the_table_for_people(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipcond.cli.gallery_options.on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["detect", "1.png", "--labels-file", "labels.json", "--most", "1", "--method", "windows"]) == 0
    shown = capsys.readouterr().out
    assert "round" in shown
    assert "center" in shown
    assert main(["detect", "1.png", "-l", LABELS, "--most", "1", "--min-score", "0.5"]) == 0
    assert "not found" in capsys.readouterr().out
    assert main(["detect", "1.png", "-l", "a red circle,a red star,a blue star", "--most", "1"]) == 0
    assert "rather a red circle" in capsys.readouterr().out


def test_a_label_that_is_not_there_is_told_of(capsys) -> None:
    command = ["detect", "1.png", "-l", LABELS, "--most", "1", "--json"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert {each["label"] for each in lines(shown.out)[0]["found"]} == set(LABELS.split(","))
    noted = " ".join(shown.err.split())
    assert (
        "mini says of each label where it would be, there or not; --min-score 0.57 keeps 94 % of what is there" in noted
    )
    assert main([*command, "--min-score", "0.57"]) == 0
    shown = capsys.readouterr()
    assert (lines(shown.out)[0]["absent"], shown.err) == (["a green cross"], "")
    assert main([*command, "--method", "windows"]) == 0
    assert "there or not; see --min-score and --sure" in " ".join(capsys.readouterr().err.split())
    assert main([*command, "--sure"]) == 0
    assert capsys.readouterr().err == ""


def test_windows_where_there_are_no_patches(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipcond.encode.patch_tower.patch_encoder", lambda model: None)
    command = ["detect", "1.png", "-l", LABELS, "--most", "1", "--json"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "mini has no patches that can be read one by one; looking at windows" in shown.err
    assert lines(shown.out)[0]["found"][0]["place"] == "center"
    assert main([*command, "--method", "patches"]) == 3
    assert "look with --method windows instead" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ([".", "-l", "a,a"], 3, "the label 'a' is there twice"),
        ([".", "-l", "a,,b"], 3, "label 2 is empty"),
        (["."], 2, "say what to find with --labels a,b,c or with --labels-file FILE, one of the two"),
        ([".", "-l", "a", "--labels-file", "labels.json"], 2, "one of the two"),
        ([".", "--labels-file", "gone.txt"], 3, "no labels at gone.txt"),
        ([".", "-l", "a", "--templates", "photos"], 3, "no templates 'photos'; expected none, photo"),
        ([".", "-l", "a", "--most", "0"], 2, "--most is 0; expected 1 or more"),
        ([".", "-l", "a", "--min-score", "2"], 2, "--min-score is 2; expected a score from -1 to 1"),
        ([".", "-l", "a", "--min-score", "nan"], 2, "expected a score from -1 to 1"),
        ([".", "-l", "a", "--method", "magic"], 2, "magic"),
        ([".", "-l", "a", "--html", "x", "--csv", "x"], 2, "--html and --csv name the same file"),
        ([".", "-l", "a", "--html", "gone/x.html"], 3, "there is no folder gone for x.html"),
        (
            [".", "-l", "a", "--html", "labels.json"],
            3,
            "labels.json is there already; name another file, or pass --overwrite",
        ),
        (["empty", "-l", "a"], 3, "no pictures in empty"),
        (["bad", "-l", "a"], 3, "none of 1 pictures could be read; the first: is not a picture"),
        ([".", "-l", "a", "-m", "./gone"], 3, "no model './gone': there is no such folder or file"),
        ([".", "-l", "a", "-m", "miny"], 3, "no model 'miny'"),
        ([".", "-l", "a", "-m", "hf:nobody/nothing"], 3, "hf:nobody/nothing"),
    ],
)
def test_typed_wrongly(words: list[str], code: int, line: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipcond.runtime.hub._hub_answers", lambda: False)
    assert main(["detect", *words]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert line in " ".join(shown.err.split())
    assert "Traceback" not in shown.err


def test_a_detection_model_has_no_method_of_ours(capsys, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "owlv2", "architectures": ["Owlv2ForObjectDetection"]}')
    assert main(["detect", "0.png", "-l", "a", "-m", f"hf:{tmp_path}", "--method", "windows"]) == 2
    assert "is a detection model, which looks in its own way; leave out --method" in " ".join(
        capsys.readouterr().err.split()
    )
    assert main(["detect", "0.png", "-l", "a", "-m", f"hf:{tmp_path}"]) == 3
    assert "preprocessor_config.json" in capsys.readouterr().err


def test_a_picture_of_one_pixel(capsys, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    for method in ("patches", "windows"):
        assert main(["detect", str(tmp_path / "dot.png"), "-l", "a red circle", "--method", method]) == 0
        (row,) = lines(capsys.readouterr().out)
        assert (row["width"], row["height"]) == (1, 1)
