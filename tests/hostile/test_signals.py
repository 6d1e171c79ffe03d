"""Ctrl-C ends a command at any moment of its first second with one line and 130, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ends import Ended, harmless
from PIL import Image

INTERRUPTED_AFTER = """
import os, signal, sys
from clipcond.cli import main

def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
signal.signal(signal.SIGPROF, interrupt)
signal.setitimer(signal.ITIMER_PROF, float(sys.argv.pop(1)))  # of the process's own time, however busy the machine
code = main()
signal.signal(signal.SIGPROF, signal.SIG_IGN)
sys.exit(code)
"""
RERANK = ("rerank", "red.png", "-p", "a fox")
GENERATE = ("generate", "a fox", "--out", "pictures", "--count", "1")
TRAIN = ("train", "--data", "pairs.csv", "--model", "mini", "--out", "run", "--steps", "9")


@pytest.mark.skipif(os.name == "nt", reason="signals are others on Windows")
@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.01, RERANK),
        (0.05, GENERATE),
        (0.08, ("models",)),
        (0.1, TRAIN),
        (0.12, ("evaluate", "--data", "pairs.csv", "--model", "mini")),
        (0.4, ("encode", "a fox", "--out", "fox.safetensors")),
        (0.6, GENERATE),
        (0.8, RERANK),
        (0.9, TRAIN),
    ],
)
def test_an_interruption_in_the_first_second_is_one_line_and_130(
    seconds: float, words: tuple[str, ...], tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    (tmp_path / "pairs.csv").write_text("image,caption\n" + "red.png,a fox\n" * 3)
    before = set(tmp_path.rglob("*"))
    command = [sys.executable, "-c", INTERRUPTED_AFTER, str(seconds), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    ended = Ended(done.returncode, done.stdout, done.stderr)
    assert ended.code == 130, ended.err
    assert ended.line.startswith("interrupted")
    assert harmless(ended.err)
    assert set(tmp_path.rglob("*")) == before
