"""The commands that answer questions about pictures, as a user types them, rightly and wrongly."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from clipcond.cli import main
from clipcond.mini import world

RULES = '[[rule]]\nname = "red"\nfor = ["a red circle"]\nagainst = ["a blue circle", "a green circle"]\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders named by a colour, a picture in each; rules and right verdicts beside."""
    root, rng = tmp_path_factory.mktemp("commands"), random.Random(1)
    for colour in ("red", "blue"):
        (root / colour).mkdir()
        thing = world.Object(colour=colour, shape="circle", cell="center")
        world.render(world.Scene(background="gray", objects=(thing,)), rng).save(root / colour / "a.png")
    (root / "rules.toml").write_text(RULES, encoding="utf-8")
    (root / "right.csv").write_text("image,red\nred/a.png,1\nblue/a.png,0\n", encoding="utf-8")
    (root / "labels.txt").write_text("red\nblue\n", encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_classify_names_what_pictures_show(capsys, tmp_path: Path) -> None:
    arguments = ["classify", ".", "-r", "--labels", "red, blue", "--truth", "folders", "--templates", "text"]
    measure, table = tmp_path / "m.json", tmp_path / "t.csv"
    assert main([*arguments, "--try-templates", "--measure", str(measure), "--csv", str(table)]) == 0
    rows = lines(capsys.readouterr().out)
    assert [row["label"] for row in rows] == [Path(row["path"]).parent.name for row in rows]
    found = json.loads(measure.read_text("utf-8"))
    assert (found["accuracy"], found["confusion"]) == (1.0, [[1, 0], [0, 1]])
    assert len(found["templates"]) == 5
    assert table.read_text("utf-8").splitlines()[0] == "image,label,probability,cosine,error"


def test_the_table_of_classify_is_for_people(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipcond.cli.gallery_options.on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["classify", ".", "-r", "--labels-file", "labels.txt", "--top", "2", "--truth", "folders"]) == 0
    shown = capsys.readouterr().out
    assert "probability" in shown
    assert "accuracy 100.0% of 2 pictures" in shown
    assert "mostly taken for" in shown


def test_classify_draws_what_is_taken_for_what(capsys, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "confusion.svg"
    command = ["classify", ".", "-r", "--labels", "red, blue", "--plot", str(plot)]
    assert main(command) == 2
    assert "--plot needs the right labels; give them with --truth folders or --truth FILE" in capsys.readouterr().err
    assert main([*command, "--truth", "folders"]) == 0
    assert plot.read_text("utf-8").startswith("<?xml")
    assert main([*command, "--truth", "folders"]) == 3
    assert "confusion.svg is there already" in capsys.readouterr().err


def test_ask_answers(capsys) -> None:
    assert main(["ask", "red", "-q", "what colour is the circle?", "-a", "blue,red"]) == 0
    (row,) = lines(capsys.readouterr().out)
    assert row["answer"] == "red"


def test_screen_flags_calibrates_and_fails(capsys, tmp_path: Path) -> None:
    out = tmp_path / "new.toml"
    assert main(["screen", ".", "-r", "--rules", "rules.toml", "--fail-on-match"]) == 1
    assert sum(bool(row["flagged"]) for row in lines(capsys.readouterr().out)) == 1
    command = [
        "screen",
        ".",
        "-r",
        "--rules",
        "rules.toml",
        "--calibrate",
        "right.csv",
        "--recall",
        "1",
        "-o",
        str(out),
    ]
    assert main(command) == 0
    assert "precision 100.0%" in capsys.readouterr().err
    assert "threshold = " in out.read_text("utf-8")
    assert main(command) in (2, 3)
    assert "new.toml" in capsys.readouterr().err


def test_search_finds_and_writes(capsys, tmp_path: Path) -> None:
    page, table = tmp_path / "found.html", tmp_path / "found.csv"
    command = ["search", ".", "red circle - blue", "-r", "-k", "1", "--html", str(page), "--csv", str(table)]
    assert main([*command, "--json"]) == 0
    shown = capsys.readouterr()
    assert [row["path"] for row in lines(shown.out)] == [str(Path("red/a.png"))]
    assert "1 of 2 pictures" in shown.err
    assert "red circle - blue" in page.read_text("utf-8")
    assert "percentile" not in page.read_text("utf-8")  # a search has none
    assert page.read_text("utf-8").count("data:image/jpeg") == 1  # of what was found
    assert len(table.read_text("utf-8").splitlines()) == 3
    assert main(["search", ".", "blue/a.png", "-r", "-k", "1", "--paths"]) == 0
    assert capsys.readouterr().out == "blue/a.png\n"
    assert main(["search", ".", "red", "-r", "--min-score", "1"]) == 3
    assert main(["search", ".", "gone.png", "-r"]) == 0
    assert "there is no file gone.png; it is searched for as words" in capsys.readouterr().err
    assert main(["search", "gone", "red"]) == 3
    assert "there is no gone; expected a picture, a folder" in capsys.readouterr().err


def test_captions_are_ranked_and_made(capsys, tmp_path: Path) -> None:
    captions = tmp_path / "c.txt"
    captions.write_text("a blue circle\na red circle\n", encoding="utf-8")
    assert main(["caption-rank", "red/a.png", "-c", str(captions), "-k", "1"]) == 0
    assert lines(capsys.readouterr().out)[0]["captions"][0]["caption"] == "a red circle"
    assert main(["interrogate", "blue/a.png", "--phrases", str(captions)]) == 0
    assert lines(capsys.readouterr().out)[0]["caption"].startswith("a blue circle")


def test_copies_are_moved_and_taken_back(capsys, tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(Path("red/a.png").read_bytes())
    away = tmp_path / "away"
    assert main(["duplicates", str(tmp_path), "--move-to", str(away), "--dry-run"]) == 0
    assert not away.exists()
    assert main(["duplicates", str(tmp_path), "--move-to", str(away)]) == 0
    shown = capsys.readouterr()
    assert lines(shown.out)[-1]["copies"][0]["kind"] == "exact"
    assert "1 copy in 1 group, among 2 pictures" in shown.err
    assert len([*tmp_path.glob("*.png")]) == 1
    assert main(["rerank", "--undo", str(away)]) == 0
    assert len([*tmp_path.glob("*.png")]) == 2


def test_a_probe_against_zero_shot(capsys, tmp_path: Path) -> None:
    plot = tmp_path / "probe.svg"
    assert main(["probe", ".", ".", "--shots", "1,2", "--draws", "1", "--plot", str(plot)]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["zero_shot"] == 1.0
    assert [row["shots"] for row in found["rows"]] == [1, None]
    assert "no class has more than 1 examples" in shown.err
    assert "<svg" in plot.read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["probe", "none", "."], "there is no none; expected a folder of folders"),
        (["probe", ".", ".", "--shots", "a"], "--shots a: expected whole numbers"),
        (["probe", ".", ".", "--plot", "x.gif"], "expected a name that ends in .png or .svg"),
        (["duplicates", "red", "--threshold", "94"], "--threshold is 94; expected a cosine above 0, up to 1"),
        (["caption-rank", "red", "-c", "no.txt"], "no captions at no.txt; expected a text file"),
        (["interrogate", "red", "--phrases", "no.txt"], "no phrases at no.txt"),
        (["interrogate", "red", "--most", "0"], "--most is 0; expected 1 or more"),
        (["search", "red", " "], "the query is empty"),
        (["search", "red", "a + "], "a text is missing here"),
        (["search", "red", "a", "--since", "yesterday"], "--since yesterday: expected a date such as 2026-01-31"),
        (["search", "red", "a", "--min-score", "7"], "expected a cosine from -1 to 1"),
        (["search", "none-*", "a"], "no pictures in none-*"),
        (["classify", "red"], "give the classes with --labels a,b,c or with --labels-file FILE"),
        (["classify", "red", "--labels", "a,a"], "'a' is there twice"),
        (["classify", "red", "--labels", "a,,b"], "label 2 is empty"),
        (["classify", "red", "--labels-file", "none.txt"], "no labels at none.txt"),
        (["classify", "none-*", "--labels", "a,b"], "no pictures in none-*"),
        (["classify", "red", "--labels", "a,b", "--templates", "photos"], "no templates 'photos'"),
        (["classify", "red", "--labels", "a,b", "--truth", "folders"], "right labels are not among the labels ('red'"),
        (["classify", "red", "--labels", "a,b", "--truth", "no.csv"], "no table of right labels at no.csv"),
        (["classify", "red", "--labels", "a,b", "--none-below", "2"], "--none-below is 2; expected a probability"),
        (["classify", "red", "--labels", "a,b", "--try-templates"], "needs the right labels"),
        (["classify", "red", "--labels", "a,b", "--csv", "no/x.csv"], "there is no folder no for x.csv"),
        (["ask", "red", "-q", "what is it?", "-a", "a,b", "--csv", "no/x.csv"], "there is no folder no for x.csv"),
        (["screen", "red", "--rules", "rules.toml", "--csv", "no/x.csv"], "there is no folder no for x.csv"),
        (["probe", ".", ".", "--plot", "no/x.svg"], "there is no folder no for x.svg"),
        (["ask", "red", "-q", "what?", "-a", "red"], "--answers needs two or more"),
        (["ask", "red", "-a", "red,blue"], "give --question"),
        (["ask", "red", "--statement", "a circle", "-a", "red,blue"], "has no {} where the answer goes"),
        (["ask", "red", "-q", "is there a star?", "-a", "red,blue"], "asks for yes or no"),
        (["screen", "red", "--rules", "no.toml"], "no rules at no.toml"),
        (["screen", "red", "--rules", "rules.toml", "--calibrate", "right.csv"], "--calibrate needs --precision or"),
        (["screen", "red", "--rules", "rules.toml", "--recall", "1"], "belong to --calibrate"),
    ],
)
def test_what_will_not_do_is_one_line_before_a_model_loads(
    arguments: list[str], message: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*given: object, **more: object) -> None:
        raise AssertionError("loaded a model")

    monkeypatch.setattr("clipcond.rerank.scorer.Scorer.load", load)
    assert main(arguments) in (2, 3)
    shown = capsys.readouterr()
    assert message in shown.err.splitlines()[0]
    assert "Traceback" not in shown.err
    assert not shown.out
