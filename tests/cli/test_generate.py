"""`clipcond generate` and `clipcond encode`, end to end on tiny random models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipcond.cli import main
from clipcond.diffusion.conditioning import Conditioning
from clipcond.prompt.infotext import parse_infotext

LONG = "a red circle in the top left, " * 20
Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, *arguments: object) -> tuple[list[dict[str, Any]], str]:
    """The JSON lines of a command that must succeed, and what it said on stderr."""
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()], err


def failure(capsys: Capture, *arguments: object) -> tuple[int, str]:
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert out == ""
    return code, err


def make(capsys: Capture, folder: Path, out: Path, *more: object) -> tuple[list[dict[str, Any]], str]:
    return run(capsys, "generate", LONG, "--pipeline", folder, "--out", out, "-n", 3, "--steps", 2, *more)


def test_writes_pictures_and_a_line_for_each(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    lines, err = make(capsys, sd_folder, tmp_path / "a", "--seed", 7, "--guidance", 3, "--negative-prompt", "grey")
    assert err == ""
    assert [line["path"] for line in lines] == [str(tmp_path / "a" / f"0000{n}-{n + 7}.png") for n in range(3)]
    assert lines[1] == {
        "path": str(tmp_path / "a" / "00001-8.png"),
        "seed": 8,
        "prompt": LONG,
        "negative_prompt": "grey",
        "steps": 2,
        "guidance_scale": 3.0,
        "pipeline": str(sd_folder),
        "through": "conditioner",
    }
    with Image.open(lines[1]["path"]) as image:
        found = parse_infotext(image.info["parameters"])
    assert (found.prompt, found.negative_prompt) == (LONG.strip(), "grey")
    assert (found.settings["Seed"], found.settings["CFG scale"]) == ("8", "3")


def test_same_seed_same_bytes(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    first, _ = make(capsys, sd_folder, tmp_path / "a")
    second, _ = make(capsys, sd_folder, tmp_path / "b")
    other, _ = make(capsys, sd_folder, tmp_path / "c", "--seed", 3)
    contents = [[Path(line["path"]).read_bytes() for line in lines] for lines in (first, second, other)]
    assert contents[0] == contents[1]
    assert not set(contents[0]) & set(contents[2])


def test_stock_says_what_is_dropped(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    lines, err = make(capsys, sd_folder, tmp_path / "a", "--stock")
    assert {line["through"] for line in lines} == {"stock"}
    assert "note: prompt: the stock pipeline reads 75 of 160 tokens and drops “" in err
    assert err.count("\n") == 1


def test_keep_moves_the_others_aside(capsys: Capture, sd_folder: Path, dual_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    lines, _ = make(capsys, sd_folder, out, "--keep", 1, "--rerank-model", dual_folder)
    assert [line["kept"] for line in lines] == [True, False, False]
    assert [line["score"] for line in lines] == sorted((line["score"] for line in lines), reverse=True)
    assert Path(lines[0]["path"]).parent == out
    assert {Path(line["path"]).parent for line in lines[1:]} == {out / "rejected"}
    assert all(Path(line["path"]).is_file() for line in lines)
    assert len(list(out.rglob("*.png"))) == 3


def test_a_picture_that_went_away_is_not_judged(
    capsys: Capture, sd_folder: Path, dual_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipcond.rerank import ranking

    def without_the_first(paths: list[Path], prompt: str, **options: Any) -> Any:
        paths[0].unlink()
        return original(paths, prompt, **options)

    original = ranking.rerank
    monkeypatch.setattr(ranking, "rerank", without_the_first)
    lines, _ = make(capsys, sd_folder, tmp_path / "a", "--keep", 2, "--rerank-model", dual_folder)
    assert [line["kept"] for line in lines] == [True, True, False]
    assert (lines[2]["seed"], lines[2]["score"]) == (0, None)
    assert lines[2]["error"]


def test_progress_is_for_terminals_and_on_stderr(
    capsys: Capture, sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich takes this for a terminal
    lines, err = make(capsys, sd_folder, tmp_path / "a")
    assert len(lines) == 3
    assert "generating" in err


def test_nothing_is_overwritten(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "00000-0.png").write_text("mine")
    code, err = failure(capsys, "generate", "x", "--pipeline", sd_folder, "--out", tmp_path)
    assert (code, err.count("\n")) == (3, 1)
    assert "00000-0.png is there already; name another folder or seed" in err
    (tmp_path / "00000-0.png").rename(tmp_path / "rejected")
    code, err = failure(capsys, "generate", "x", "--pipeline", sd_folder, "--out", tmp_path, "--keep", 1)
    assert code == 3
    assert "rejected is a file; name a folder for the pictures" in err


def test_a_pipeline_that_is_not_there_is_one_line(capsys: Capture, tmp_path: Path) -> None:
    code, err = failure(capsys, "generate", "x", "--pipeline", "./nowhere", "--out", tmp_path)
    assert code == 3
    assert err.startswith("error: no pipeline './nowhere': there is no such folder; a pipeline is `mini`, a folder")
    assert list(tmp_path.iterdir()) == []


def test_a_rerank_model_that_is_not_there_costs_no_pictures(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    given = ["generate", "x", "--pipeline", sd_folder, "--out", tmp_path, "--keep", 1, "--rerank-model", "./nowhere"]
    code, err = failure(capsys, *given)
    assert code == 3
    assert "nowhere" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["x", "-n", "2", "--keep", "3"], "--keep 3 of --count 2 pictures"),
        (["", "--keep", "1"], "--keep needs a PROMPT"),
        (["x", "-n", "0"], "--count"),
        (["x", "--dtype", "int8"], "--dtype"),
    ],
)
def test_wrong_usage_exits_with_2(capsys: Capture, tmp_path: Path, arguments: list[str], text: str) -> None:
    code, err = failure(capsys, "generate", *arguments, "--out", tmp_path / "a")
    assert code == 2
    assert text in err


def test_encode_writes_a_conditioning(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "fox.safetensors"
    given = ["encode", LONG, "--model", sd_folder, "-o", file, "--negative-prompt", "grey", "--clip-skip", 1]
    (line,), err = run(capsys, *given)
    assert err == ""
    assert line == {
        "path": str(file),
        "prompt": LONG,
        "negative_prompt": "grey",
        "family": "sd15",
        "dialect": "plain",
        "clip_skip": 1,
        "content_tokens": 160,
        "chunks": 3,
        "shape": [1, 231, 32],
        "dtype": "float32",
    }
    back = Conditioning.load(file)
    assert (back.prompts, back.negative_prompts, back.clip_skip) == ((LONG,), ("grey",), 1)
    code, err = failure(capsys, *given)
    assert code == 3
    assert "fox.safetensors exists already; choose another name with --out" in err
    code, err = failure(capsys, "encode", "x", "-o", tmp_path / "nowhere" / "fox.safetensors")
    assert code == 3
    assert "there is no folder" in err
    assert "nowhere; make it, or choose another name with --out" in err
