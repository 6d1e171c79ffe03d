"""An output is whole or not there, what was damaged is refused, and a hostile name stays a name."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from ends import harmless, run

Capture = pytest.CaptureFixture[str]
Limit = Callable[[int], AbstractContextManager[None]]
HOSTILE = "fox\x1b]0;owned\x07\x9b2J\u202e<script>alert(1)</script>"


def test_a_full_disk_leaves_no_part_of_a_page_and_the_same_command_then_works(
    tmp_path: Path, file_size_limit: Limit, capsys: Capture
) -> None:
    page = tmp_path / "fox.html"
    words = ("tokens", HOSTILE, "--dialect", "a1111", "--html", page)
    with file_size_limit(100):
        done = run(capsys, *words)
    assert done.code == 3
    assert str(page) in done.err
    assert list(tmp_path.iterdir()) == []
    assert run(capsys, *words).code == 0
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert harmless(text.replace("\r", ""))


def test_a_conditioning_is_whole_and_one_that_was_changed_makes_no_picture(
    sd_folder: Path, tmp_path: Path, file_size_limit: Limit, capsys: Capture
) -> None:
    file, pictures = tmp_path / "fox.safetensors", tmp_path / "pictures"
    words = ("encode", "a (red:1.3) fox", "--model", sd_folder, "--dialect", "a1111", "--out", file)
    with file_size_limit(5000):
        done = run(capsys, *words)
    assert done.code == 3
    assert str(file) in done.err
    assert list(tmp_path.iterdir()) == []
    assert run(capsys, *words).code == 0
    content = bytearray(file.read_bytes())
    content[-1] ^= 0x40
    file.write_bytes(content)
    done = run(capsys, "generate", "--conditioning", file, "--pipeline", sd_folder, "--out", pictures, "--count", 1)
    assert (done.code, done.out) == (3, "")
    assert "holds a damaged conditioning: " in done.line
    assert not list(pictures.glob("*"))


DIES_AMONG_MOVES = """
import os, signal, sys
from clipcond import files
from clipcond.cli.main import main
named, moved = files._name, []

def name(temporary, path, otherwise):
    named(temporary, path, otherwise)
    moved.extend([path] if path.parent.name == "rejected" else [])
    if len(moved) == 2:  # the picture has its new name and still its old one
        os.kill(os.getpid(), signal.SIGKILL)

files._name = name
main()
"""


def test_generate_killed_among_its_moves_is_put_right_by_the_next_run(tmp_path: Path, capsys: Capture) -> None:
    words = ["generate", "a red circle", "--count", "4", "--keep", "1", "--steps", "1", "--out"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(capsys, *words, whole).code == 0
    command = [sys.executable, "-c", DIES_AMONG_MOVES, *words, str(parts)]
    assert subprocess.run(command, capture_output=True, timeout=100).returncode == -signal.SIGKILL
    assert len([*parts.glob("*.png"), *parts.glob("rejected/*.png")]) == 5
    done = run(capsys, *words, parts)
    assert done.code == 0
    assert "goes on with the run that was stopped: 4 of 4 pictures are there" in done.err
    assert _contents(parts) == _contents(whole)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_generate_leaves_no_part_of_a_picture_on_a_full_disk(
    sd_folder: Path, tmp_path: Path, file_size_limit: Limit, capsys: Capture
) -> None:
    with file_size_limit(60):
        done = run(
            capsys, "generate", HOSTILE, "--pipeline", sd_folder, "--out", tmp_path / "out", "--count", 1, "--steps", 1
        )
    assert done.code == 3
    assert ".png" in done.err
    left = [path.suffix for path in (tmp_path / "out").iterdir()] if (tmp_path / "out").exists() else []
    assert not {".png", ".unfinished", ".tmp"} & set(left)


@pytest.mark.parametrize(
    "words",
    [
        ("rerank", HOSTILE, "-p", "fox"),
        ("tokens", "--file", HOSTILE),
        ("tokens", "fox", "--embeddings", HOSTILE),
        ("tokens", "fox", "--html", f"{HOSTILE}/a.html"),
        ("encode", "fox", "--out", f"{HOSTILE}/a.safetensors"),
        ("generate", "--conditioning", HOSTILE, "--out", "x"),
        ("generate", "fox", "--pipeline", f"./{HOSTILE}", "--out", "x"),
        ("train", "--data", f"{HOSTILE}.csv", "--model", "mini", "--out", "x"),
        ("train", HOSTILE),
        ("evaluate", "--data", f"{HOSTILE}.csv", "--model", "mini"),
        ("models", HOSTILE),
        ("translate", "fox", "--to", HOSTILE),
    ],
)
def test_no_message_steers_the_terminal(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(capsys, *words)
    assert harmless(done.out + done.err), ascii(done.out + done.err)
    assert list(tmp_path.iterdir()) == []
