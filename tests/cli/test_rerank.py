"""`clipcond rerank` end to end on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcond.cli import main
from clipcond.prompt.infotext import format_infotext

NAMES = ("a b.png", "[red]x[.png", "grün.png")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, colour in zip(NAMES, ("red", "lime", "blue"), strict=True):
        info = PngInfo()
        info.add_text("parameters", format_infotext(f"a {colour} square", "", {"Steps": 1, "Seed": 2, "Size": "1x1"}))
        Image.new("RGB", (32, 48), colour).save(tmp_path / name, pnginfo=info)
    (tmp_path / "bad.png").write_text("no picture")
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "deep" / "plain.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    return tmp_path


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is read by a person, without colours."""
    monkeypatch.setattr("clipcond.cli.rerank.on_terminal", lambda: True)


@pytest.fixture
def model(dual_folder: Path) -> tuple[str, str]:
    return "--model", str(dual_folder)


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_table_fits_and_loses_nothing(
    terminal: None, folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerank", ".", "--prompt", "a red square", *model]) == 0
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 60
    assert all(name in out for name in NAMES)
    assert "(3 tokens)" in out
    assert "error bad.png: is not a picture" in out
    assert "3 scored with" in err
    assert "3 kept, 1 with an error" in err


def test_a_narrow_table_has_room_for_names(
    terminal: None,
    folder: Path,
    model: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["rerank", ".", "--prompt", "a red square", *model]) == 0
    out, _ = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 40
    assert all(name in out for name in NAMES)
    assert "█" not in out


def test_large_pictures_are_scored_without_a_word_from_pillow(
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 48 - 1)
    assert main(["rerank", *NAMES, "--prompt", "a red square", "--paths", *model]) == 0
    assert capsys.readouterr().err == ""


def test_a_long_prompt_says_how_it_was_scored(
    terminal: None, folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerank", "a b.png", "--prompt", "cat " * 100, *model]) == 0
    assert "(100 tokens in 2 chunks)" in " ".join(capsys.readouterr().out.split())


def test_json_is_a_line_per_picture_and_nothing_else(
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerank", ".", "-p", "a red square", "--json", "--top", "1", *model]) == 0
    out, err = capsys.readouterr()
    rows = lines(out)
    assert [row["rank"] for row in rows] == [1, 2, 3, None]
    assert [row["kept"] for row in rows] == [True, False, False, False]
    assert {row["path"] for row in rows} == {*NAMES, "bad.png"}
    assert rows[3]["error"] == "is not a picture in a format that can be read"
    assert err == ""


def test_a_pipe_gets_json(folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerank", ".", "-p", "a red square", *model]) == 0
    assert [row["rank"] for row in lines(capsys.readouterr().out)] == [1, 2, 3, None]


def test_an_interruption_is_one_sentence(
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("clipcond.rerank.ranking.rerank", interrupt)
    assert main(["rerank", ".", "-p", "a red square", *model]) == 130
    assert capsys.readouterr() == ("", "interrupted: nothing was ranked, and no file was changed\n")


def test_paths_are_the_kept_ones(folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerank", "*.png", "-p", "a red square", "--json", *model]) == 0
    order = [row["path"] for row in lines(capsys.readouterr().out) if row["rank"]]
    assert main(["rerank", "*.png", "-p", "a red square", "--paths", "--top", "2", *model]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == order[:2]
    assert err == ""


def test_the_table_shows_what_is_kept(
    terminal: None, folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerank", ".", "-p", "a red square", "--top", "1", *model]) == 0
    out, err = capsys.readouterr()
    assert sum(name in out for name in NAMES) == 1
    assert "3 scored" in err
    assert "1 kept" in err


def test_each_pictures_own_prompt(
    terminal: None, folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerank", ".", "--recursive", *model]) == 0
    out = capsys.readouterr().out
    assert all(f"a {colour} square" in " ".join(out.split()) for colour in ("red", "lime", "blue"))
    assert "plain.png: it carries no prompt" in " ".join(out.split())


def test_a_threshold_that_nothing_reaches_is_no_error(
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerank", ".", "-p", "a", "--paths", "--threshold", "1", *model]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "0 kept, 1 with an error: the best cosine is" in err


def test_nothing_found_exits_3(folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "none").mkdir()
    assert main(["rerank", "none", "*.tiff", "-p", "a", *model]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: no pictures in none, *.tiff; --recursive looks into the folders below\n"


def test_a_source_without_pictures_beside_others_is_a_note(
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerank", "*.tiff", "a b.png", "-p", "a", "--json", "-r", *model]) == 0
    out, err = capsys.readouterr()
    assert len(lines(out)) == 1
    assert err == "note: no pictures in *.tiff\n"


def test_nothing_scored_exits_3_with_the_reasons(
    terminal: None, folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerank", "bad.png", "gone.png", "-p", "a", *model]) == 3
    out, err = capsys.readouterr()
    assert "error bad.png: is not a picture" in out
    assert "error gone.png: no such file" in out
    assert "0 scored" in err


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        (["--top", "0"], 2, "--top"),
        (["--diversity", "2"], 2, "--diversity"),
        (["--threshold", "3"], 2, "--threshold"),
        (["--json", "--paths"], 2, "exclude each other"),
        (["--prompt", " "], 2, "error: --prompt is empty"),
        (["--model", "./nothing"], 3, "error: no model './nothing': there is no such folder"),
    ],
)
def test_wrong_calls(
    extra: list[str],
    code: int,
    message: str,
    folder: Path,
    model: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["rerank", ".", "--prompt", "a", *model, *extra]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in " ".join(err.split())


def test_control_characters_do_not_reach_the_terminal(
    terminal: None, folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(folder / "x\x1b[31my.png")
    assert main(["rerank", "x*.png", "-p", "a\x1b[0m b\n", *model]) == 0
    assert "\x1b" not in capsys.readouterr().out
