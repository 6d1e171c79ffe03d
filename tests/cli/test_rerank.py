"""`clipcond rerank` end to end on a tiny model."""

from __future__ import annotations

import importlib.util
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


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person reads standard output, without colours."""
    monkeypatch.setattr("clipcond.cli.rerank_run.on_terminal", lambda: True)


@pytest.fixture
def model(dual_folder: Path) -> tuple[str, str]:
    return "--model", str(dual_folder)


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_table_fits_and_loses_nothing(
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
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
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
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
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
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


def test_a_pipe_gets_json(
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipcond.cli.rerank_run.on_terminal", lambda: False)
    assert main(["rerank", ".", "-p", "a red square", *model]) == 0
    assert [row["rank"] for row in lines(capsys.readouterr().out)] == [1, 2, 3, None]


def test_an_interruption_is_one_sentence(
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("clipcond.rerank.ranking.rank_pictures", interrupt)
    assert main(["rerank", ".", "-p", "a red square", *model]) == 130
    assert capsys.readouterr() == ("", "interrupted: nothing was ranked, and no file was changed\n")


def test_paths_are_the_kept_ones(folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerank", "*.png", "-p", "a red square", "--json", *model]) == 0
    order = [row["path"] for row in lines(capsys.readouterr().out) if row["rank"]]
    assert main(["rerank", "*.png", "-p", "a red square", "--paths", "--top", "2", *model]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == order[:2]
    assert err == ""


def test_the_table_shows_what_is_kept(folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerank", ".", "-p", "a red square", "--top", "1", *model]) == 0
    out, err = capsys.readouterr()
    assert sum(name in out for name in NAMES) == 1
    assert "3 scored" in err
    assert "1 kept" in err


def test_each_pictures_own_prompt(folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
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
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
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
        (["--threshold", "3"], 2, "threshold is 3; expected a cosine from -1 to 1"),
        (["--json", "--paths"], 2, "exclude each other"),
        (["--prompt", " "], 2, "the prompt is empty"),
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
    assert message in " ".join(err.replace("│", " ").split())


def test_control_characters_do_not_reach_the_terminal(
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(folder / "x\x1b[31my.png")
    assert main(["rerank", "x*.png", "-p", "a\x1b[0m b\n", *model]) == 0
    assert "\x1b" not in capsys.readouterr().out


# what people do next


@pytest.mark.parametrize("action", ["copy", "move", "link"])
def test_the_best_go_where_they_should_and_come_back(
    action: str, folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a b.txt").write_text("beside")
    before = {path.name for path in folder.iterdir()}
    call = ["rerank", ".", "-p", "a red square", "--top", "3", f"--{action}-to", "best", *model]
    assert main([*call, "--dry-run"]) == 0
    assert f"would {action} " in capsys.readouterr().err
    assert not (folder / "best").exists()
    assert main(call) == 0
    past = {"copy": "copied", "move": "moved", "link": "linked"}[action]
    assert f"3 pictures and 1 file beside them {past} to best; --undo best takes it back" in capsys.readouterr().err
    assert {path.name for path in (folder / "best").glob("[!.]*")} == {*NAMES, "a b.txt"}
    assert (folder / NAMES[0]).exists() == (action != "move")
    assert main(["rerank", "--undo", "best"]) == 0
    assert capsys.readouterr().err == "4 of 4 taken back\n"
    assert {path.name for path in folder.iterdir()} == before


def test_a_score_is_written_back(folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8)).save(folder / "c.jpg")
    assert main(["rerank", "a b.png", "c.jpg", "-p", "a", "--write-back", "score", *model]) == 0
    err = capsys.readouterr().err
    assert "1 pictures got their score" in err
    assert "note: c.jpg is no PNG" in err
    with Image.open(folder / "a b.png") as image:
        assert json.loads(image.info["clipcond"])["scale"] == "cosine"


def test_paths_for_xargs_0(folder: Path, model: tuple[str, str], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["rerank", ".", "-p", "a", "--print0", *model]) == 0
    assert sorted(capfdbinary.readouterr().out.split(b"\0")[:-1]) == sorted(name.encode() for name in NAMES)


def test_all_rows_as_a_csv(folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    import csv

    assert main(["rerank", ".", "--csv", "out.csv", "--phrases", *model]) == 0
    with open(folder / "out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == {*NAMES, "bad.png"}
    assert {"rank", "cosine", "clipscore", "prompt_source", "missing", "error"} <= rows[0].keys()
    assert main(["rerank", ".", "--csv", "out.csv", *model]) == 3
    assert "out.csv is there already" in capsys.readouterr().err


def test_pictures_without_a_prompt_are_one_line(
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for number in range(32):
        Image.new("RGB", (8, 8)).save(folder / "deep" / f"{number:02}.png")
    assert main(["rerank", "deep", "grün.png", *model]) == 0
    out, err = capsys.readouterr()
    assert out.count("error") == 1
    assert "error 33 pictures have no prompt of their own (00.png, 01.png, 02.png and 30 more); pass --prompt" in out
    assert err.endswith("1 kept, 33 with an error\n")


def test_pairs_are_by_name(folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pairs.csv").write_text('image,prompt\ngrün.png,"the sea, blue"\na b.png,a hat\ngrün.png,a hat\n')
    assert main(["rerank", "--pairs", "pairs.csv", "--json", *model]) == 0
    rows = lines(capsys.readouterr().out)
    assert {(row["path"], row["prompt"]) for row in rows} == {
        ("grün.png", "the sea, blue"), ("a b.png", "a hat"), ("grün.png", "a hat")
    }  # fmt: skip
    assert {row["prompt_source"] for row in rows} == {"pairs (pairs.csv)"}


def test_prompts_and_pictures_are_matched(
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "prompts.txt").write_text("a hat\nthe sea\n\na hat\n")
    call = ["rerank", *NAMES, "--prompts", "prompts.txt", "--json", *model]
    assert main(call) == 0
    rows = lines(capsys.readouterr().out)
    assert len(rows) == 6
    best = {row["prompt"]: row["path"] for row in rows if row["rank"] == 1}
    assert main([*call, "--assign"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["prompt"]: each["path"] for each in found["pictures"]} == best
    assert [each["path"] for each in found["prompts"]] == sorted(NAMES)
    assert len({each["path"] for each in found["one_to_one"]}) == 2
    assert main([*call[:-3], *model, "--assign"]) == 0
    assert "its best picture" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--score", "clipscor"], "no column 'clipscor'; did you mean clipscore?"),
        (["--score", "hps"], "no column 'hps'"),
        (["--copy-to", "a", "--move-to", "b"], "--copy-to and --move-to exclude each other"),
        (["--dry-run"], "name --copy-to"),
        (["--write-back", "x"], "expected score or rating"),
        (["--top-percent", "0"], "top_percent is 0"),
        (["--threshold", "clipscore>"], "expected COLUMN>=VALUE"),
        (["--threshold", "sharpness>1"], "no column 'sharpness'"),
        (["--long-prompt", "middle"], "expected one of mean, max, first, min"),
        (["--assign"], "give them with --prompts FILE"),
        (["--prompts", "x.txt"], "--prompt and --prompts exclude each other"),
        (["--csv", "x.xlsx"], "ends in .xlsx"),
        (["--csv", "x.parquet"], "Parquet needs pyarrow"),
        (["--undo", "x"], "--undo names the pictures itself"),
        (["--move-to", "a b.png"], "is a file; name a folder"),
    ],
)
def test_what_contradicts_itself_is_wrong_usage_before_a_model_is_loaded(
    extra: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    if "x.parquet" in extra and importlib.util.find_spec("pyarrow"):
        pytest.skip("pyarrow is here")
    assert main(["rerank", ".", "--prompt", "a", "--model", "./nothing", *extra]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--scores", "none.csv"], "cannot read none.csv: No such file"),
        (["--distractors", "none.txt"], "cannot read none.txt"),
        (["--aesthetic", "none.pth"], "no aesthetic head at none.pth"),
    ],
)
def test_a_file_that_is_not_there_is_said_before_a_model_is_loaded(
    extra: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerank", ".", "--prompt", "a", "--model", "./nothing", *extra]) == 3
    assert message in capsys.readouterr().err


def test_a_list_of_chosen_pictures_is_applied(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = {"clipcond": "chosen", "version": 1, "keep": ["grün.png", str(folder / "a b.png")], "discard": ["bad.png"]}
    (folder / "chosen.json").write_text(json.dumps(chosen))
    assert main(["rerank", "--apply", "chosen.json", "--move-to", "best"]) == 0
    assert {path.name for path in (folder / "best").glob("[!.]*")} == {"grün.png", "a b.png"}
    assert main(["rerank", "--apply", "chosen.json"]) == 2
    (folder / "chosen.json").write_text("[]")
    assert main(["rerank", "--apply", "chosen.json", "--move-to", "best"]) == 3
    assert "is no list of chosen pictures" in capsys.readouterr().err


def test_moves_are_counted_in_pictures_and_undone_once(
    folder: Path, model: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a b.txt").write_text("a red square")
    assert main(["rerank", "a b.png", "grün.png", "-p", "a", "--move-to", "best", *model]) == 0
    assert "2 pictures and 1 file beside them moved to best; --undo best takes it back" in capsys.readouterr().err
    assert main(["rerank", "--undo", "best"]) == 0
    assert main(["rerank", "--undo", "best"]) == 3
    assert "best; name the folder that pictures were moved to, if it was not undone before" in capsys.readouterr().err


def test_unseen_words_of_the_pictures_own_prompts_and_of_iqa_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("zebra.png").write_bytes(Path("deep/plain.png").read_bytes())
    Path("zebra.txt").write_text("a zebra")
    assert main(["rerank", "a b.png", "zebra.png", "--score", "cosine, iqa", "--model", "mini"]) == 0
    shown = capsys.readouterr()
    assert "mini has never seen the word zebra; it reads nothing there" in " ".join((shown.out + shown.err).split())
    assert "iqa compares “Good photo.” with “Bad photo.”: mini has never seen the words good, ph" in shown.err
