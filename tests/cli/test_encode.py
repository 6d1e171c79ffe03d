"""`clipcond encode`, end to end on a tiny random pipeline."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, get_args

import pytest

from clipcond.cli import conditioning_options, main
from clipcond.condition.lengths import LENGTHS
from clipcond.condition.pooled import Policy
from clipcond.condition.weighting import METHODS, MODIFIERS
from clipcond.diffusion.conditioning import Conditioning
from clipcond.prompt.plan import DIALECTS

LONG = "a red circle in the top left, " * 20
Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, *arguments: object) -> tuple[dict[str, Any], str]:
    """The JSON line of a command that must succeed, and what it said on stderr."""
    code = main(["encode", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out), err


def failure(capsys: Capture, *arguments: object) -> tuple[int, str]:
    code = main(["encode", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert out == ""
    return code, err


def test_writes_a_conditioning(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "fox.safetensors"
    given = [LONG, "--model", sd_folder, "-o", file, "--negative-prompt", "grey", "--clip-skip", 1]
    line, err = run(capsys, *given)
    assert err == ""
    assert line == {
        "path": str(file),
        "prompt": LONG,
        "negative_prompt": "grey",
        "family": "sd15",
        "dialect": "plain",
        "weighting": "none",
        "chunking": None,
        "clip_skip": 1,
        "pooled": "first",
        "lengths": "lcm",
        "encoders": {"clip_l": {"content_tokens": 160, "chunks": 3}},
        "tensors": {"prompt_embeds": [1, 231, 32], "negative_prompt_embeds": [1, 231, 32]},
        "dtype": "float32",
    }
    back = Conditioning.load(file)
    assert (back.prompts, back.negative_prompts, back.clip_skip) == ((LONG,), ("grey",), 1)
    code, err = failure(capsys, *given)
    assert code == 3
    assert "fox.safetensors is there already; choose another name with --out, or --overwrite" in err


def test_a_folder_that_is_not_there_is_said_before_anything_is_loaded(capsys: Capture, tmp_path: Path) -> None:
    code, err = failure(capsys, "x", "-o", tmp_path / "nowhere" / "fox.safetensors")
    assert (code, err.count("\n")) == (3, 1)
    assert "there is no folder" in err
    assert "nowhere for fox.safetensors; make it, or name another" in err


def test_what_is_odd_is_said_with_the_text_that_it_is_about(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    how = ["--dialect", "a1111", "--weighting", "none", "--chunking", "word", "--lengths", "pad_empty"]
    given = ["a (red:1.3) fox", "-m", sd_folder, "-o", tmp_path / "x.safetensors", "--negative-prompt", "grey)"]
    line, err = run(capsys, *given, *how)
    assert (line["weighting"], line["chunking"], line["lengths"]) == ("none", "word", "pad_empty")
    assert [each.partition(": ")[2].partition(": ")[0] for each in err.splitlines()] == ["prompt", "negative prompt"]
    assert "these weights change nothing: the weighting is none" in err


def test_a_prompt_that_changes_needs_the_steps(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "fox.safetensors"
    given = ["a [red:blue:0.5] fox", "-m", sd_folder, "-o", file, "--dialect", "a1111"]
    code, err = failure(capsys, *given)
    assert (code, file.exists()) == (2, False)
    assert "the prompt changes over the steps: say --steps N" in " ".join(err.replace("│", " ").split())
    line, _ = run(capsys, *given, "--steps", 10)
    assert line["tensors"]["prompt_embeds"] == [1, 77, 32]


@pytest.mark.parametrize("given", [["a fox AND a bird"], ["a fox", "--negative-prompt", "a fox AND a bird"]])
def test_and_is_refused_before_anything_is_loaded(capsys: Capture, tmp_path: Path, given: list[str]) -> None:
    code, err = failure(capsys, *given, "-m", tmp_path / "none", "-o", tmp_path / "x", "--dialect", "a1111")
    assert (code, err.count("\n")) == (3, 1)
    assert err.startswith("error: a file holds no AND,")


def test_the_same_thing_is_said_once(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    _, err = run(capsys, "(a:1.3) (b:1.3)", "-m", sd_folder, "-o", tmp_path / "x", "--dialect", "compel")
    assert err.count("\n") == 1
    assert err.endswith(" (2 times)\n")


def test_the_options_name_what_the_library_knows(capsys: Capture) -> None:
    assert main(["encode", "--help"]) == 0
    words = set(capsys.readouterr().out.replace(",", " ").replace(";", " ").replace("│", " ").split())
    assert {*METHODS, *(f"+{each}" for each in MODIFIERS)} <= words
    alternatives = {name: get_args(get_args(getattr(conditioning_options, name))[0]) for name in ("Pooled", "Lengths")}
    assert alternatives["Pooled"] == get_args(Policy)
    assert get_args(alternatives["Lengths"][0]) == LENGTHS
    assert "|".join([*DIALECTS, "auto"]) in words


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Missing argument"),
        (["x", "--weighting", "compel+"], "--weighting: unknown modifier of a weighting ''"),
        (["x", "--chunking", "soft"], "--chunking soft does not exist"),
        (["x", "--steps", "0"], "--steps"),
    ],
)
def test_wrong_usage_exits_with_2(capsys: Capture, tmp_path: Path, arguments: list[str], text: str) -> None:
    code, err = failure(capsys, *arguments, "--out", tmp_path / "a")
    assert code == 2
    assert text in " ".join(err.replace("│", " ").split())


def test_a_full_disk_leaves_no_file_and_the_same_command_goes_on(
    capsys: Capture, sd_folder: Path, tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    file = tmp_path / "fox.safetensors"
    with file_size_limit(1000):
        code, err = failure(capsys, "a fox", "-m", sd_folder, "-o", file)
    assert (code, err.splitlines()[-1]) == (3, f"error: {file}: File too large")
    assert list(tmp_path.iterdir()) == []
    run(capsys, "a fox", "-m", sd_folder, "-o", file)
    assert file.is_file()


def test_a_file_is_written_with_the_umasks_mode_and_replaced_when_asked(
    capsys: Capture, sd_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "fox.safetensors"
    before = os.umask(0o027)
    try:
        run(capsys, "a fox", "-m", sd_folder, "-o", file)
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o640
    first = file.read_bytes()
    run(capsys, "a red dog", "-m", sd_folder, "-o", file, "--overwrite")
    assert file.read_bytes() != first


def test_a_terminal_gets_a_line_for_people(
    capsys: Capture, sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipcond.cli.encode.on_terminal", lambda: True)
    file = tmp_path / "fox.safetensors"
    assert main(["encode", "fox " * 80, "-m", str(sd_folder), "-o", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}  sd15, read as plain: clip_l 80 tokens in 2 chunks\n"


def test_words_that_the_model_has_never_seen_are_named(capsys: Capture, tmp_path: Path) -> None:
    _, err = run(capsys, "a red fox, a rutkowski circle", "-o", tmp_path / "x")
    assert err == "note: mini has never seen the words fox, rutkowski; it reads nothing there\n"
