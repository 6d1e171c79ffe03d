"""`clipcond interrogate` and `detect` with a model that writes, as a user types them, rightly and wrongly."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from florence_folder import write_florence
from PIL import Image

from clipcond.cli import main
from clipcond.models.florence import Answer

LONG = "a fox in the snow at night with the moon behind it " * 7  # of 12 tokens
ANSWERS = {
    "<CAPTION>": Answer(text="a red fox", probability=0.5, whole=True),
    "<DETAILED_CAPTION>": Answer(text=LONG.strip(), probability=0.25, whole=False),
    "<OPEN_VOCABULARY_DETECTION>fox": Answer(
        text="fox<loc_100><loc_200><loc_300><loc_400>", probability=0.75, whole=True
    ),
    "<OPEN_VOCABULARY_DETECTION>sea": Answer(text="", probability=0.0, whole=True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("interrogate")
    Image.new("RGB", (1000, 500), "red").save(root / "fox.png")
    (root / "bad.png").write_text("no picture")
    write_florence(root / "florence")
    (root / "owl").mkdir()
    (root / "owl" / "config.json").write_text('{"model_type": "owlv2", "architectures": ["Owlv2ForObjectDetection"]}')
    return root


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("clipcond.models.florence.answer_to", lambda model, image, command: ANSWERS[command])


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_captions_in_lines_and_in_a_table_to_train_on(capsys, tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    assert main(["interrogate", ".", "-m", "hf:florence", "--csv", str(table)]) == 0
    shown = capsys.readouterr()
    bad, good = lines(shown.out)[::-1]
    assert good == {
        "path": "fox.png", "caption": "a red fox", "probability": 0.5, "content_tokens": 3, "beyond": "", "whole": True,
    }  # fmt: skip
    assert bad["path"] == "bad.png"
    assert shown.err == f"wrote {table}\n"
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"image": "fox.png", "caption": "a red fox", "content_tokens": "3", "error": ""}
    assert (rows[1]["image"], rows[1]["caption"]) == ("bad.png", "")
    assert main(["interrogate", "fox.png", "-m", "hf:florence", "--csv", str(table)]) == 3
    assert "captions.csv is there already; name another file, or pass --overwrite" in capsys.readouterr().err
    assert main(["interrogate", "fox.png", "-m", "hf:florence", "--csv", str(table), "--overwrite"]) == 0


def test_what_is_cut_and_what_did_not_end_is_said(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipcond.cli.gallery_options.on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["interrogate", "fox.png", "-m", "florence", "--style", "detailed"]) == 0
    shown = capsys.readouterr()
    noted = " ".join(shown.err.split())
    assert "fox.png: the caption has 84 tokens; beyond 75: the snow at night with the moon behind it" in noted
    assert "florence did not come to an end; its caption stops where it has no place for more" in noted
    assert shown.out.split()[:7] == ["picture", "probability", "tokens", "caption", "fox.png", "0.250", "84"]


def test_boxes_of_what_it_wrote(capsys, tmp_path: Path) -> None:
    page = tmp_path / "where.html"
    assert main(["detect", "fox.png", "-l", "fox,sea", "-m", "hf:florence", "--html", str(page)]) == 0
    (row,) = lines(capsys.readouterr().out)
    box = {"label": "fox", "score": 0.75, "place": "top left", "box": [100, 100, 300, 200], "rather": None}
    assert (row["found"], row["absent"]) == ([box], ["sea"])
    assert "fox" in page.read_text("utf-8")
    assert main(["detect", "fox.png", "-l", "fox,sea", "-m", "hf:florence", "--min-score", "0.8"]) == 0
    assert lines(capsys.readouterr().out)[0]["absent"] == ["fox", "sea"]


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (
            ["fox.png", "--style", "short"],
            2,
            "--style is for a model that writes captions (Florence-2), and mini is none",
        ),
        (["fox.png", "-m", "hf:owl", "--style", "short"], 2, "and hf:owl is none; leave it out"),
        (["fox.png", "-m", "hf:owl"], 3, "hf:owl is OWLv2, a detection model; expected a dual encoder"),
        (["fox.png", "-m", "hf:florence", "--style", "long"], 2, "'short', 'detailed', 'more-detailed'"),
        (["fox.png", "-m", "hf:florence", "--most", "3"], 2, "writes its captions in its own words; leave out --most"),
        (["fox.png", "--style", "short", "--phrases", "x"], 2, "--phrases for phrases; give one"),
        (["bad.png", "-m", "hf:florence"], 3, "none of 1 pictures could be read; the first: is not a picture"),
        (["fox.png", "-m", "./gone", "--style", "short"], 3, "no model './gone': there is no such folder or file"),
        (["fox.png", "-m", "hf:florence", "--csv", "no/x.csv"], 3, "there is no folder no for x.csv"),
    ],
)
def test_typed_wrongly(words: list[str], code: int, line: str, capsys) -> None:
    assert main(["interrogate", *words]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert line in " ".join(shown.err.split())
    assert "Traceback" not in shown.err
