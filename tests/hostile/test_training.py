"""Data that lies, and two runs in one folder: one line, and nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from ends import COMMAND, run
from pictures import picture

Capture = pytest.CaptureFixture[str]
DEEP = '{"image": "0.png", "caption": ' + "[" * 50_000 + "]" * 50_000 + "}"
TABLES = {
    "latin.csv": ("image,caption\n0.png,a caf\xe9\n".encode("latin-1"), "line 2"),
    "wide.csv": ("image,caption\n0.png,a fox\n".encode("utf-16"), "UTF-16"),
    "long.csv": (b"image,caption\n0.png," + b"fox " * 50_000 + b"\n", "line 2"),
    "more.csv": (b"image,caption\n0.png,a fox, brown\n", "line 2"),
    "quote.csv": (b'image,caption\n0.png,"a fox\n0.png,a cat\n', "quote"),
    "deep.jsonl": (DEEP.encode(), "line 1"),
    "nul.csv": (b"image,caption\n0.png,a\0fox\n" + bytes(100), "line"),
    "steering.csv": ("image,caption\n\x1b[2J\u202egone.png,a fox\n".encode(), "gone.png"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_lies_is_one_line_with_its_place(name: str, tmp_path: Path, capsys: Capture) -> None:
    content, place = TABLES[name]
    picture(0).save(tmp_path / "0.png")
    (tmp_path / name).write_bytes(content)
    done = run(capsys, "train", "--data", tmp_path / name, "--model", "mini", "--out", tmp_path / "run")
    assert (done.code, done.out) == (3, "")
    assert place in done.line
    assert name in done.line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content",
    ["data = " + "[" * 100_000, "steps = " + "9" * 5000, "\ufeff\0", '"\\u001b[2J\\u202e" = 1', "seed = 1e400"],
)
def test_settings_that_are_none_are_one_line(content: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "run.toml").write_text(content, encoding="utf-8")
    done = run(capsys, "train", tmp_path / "run.toml")
    assert (done.code, done.out) == (3, "")
    assert "run.toml" in done.line


def test_a_tar_that_claims_a_terabyte_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    for name in ("0.png", "0.txt"):
        member = tarfile.TarInfo(name)
        member.size = 2**40
        (tmp_path / "a.tar").write_bytes(member.tobuf() + bytes(1024))
        done = run(capsys, "train", "--data", tmp_path / "a.tar", "--model", "mini", "--out", tmp_path / "run")
        assert (done.code, done.out) == (3, "")
        assert "a.tar" in done.line


def test_of_two_runs_in_one_folder_the_second_is_told_and_the_first_goes_on(
    dual_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    rows = [json.dumps({"image": f"{number}.png", "caption": f"picture {number}"}) for number in range(6)]
    for number in range(6):
        picture(number).save(tmp_path / f"{number}.png")
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    words = ["train", "--data", tmp_path / "pairs.jsonl", "--model", dual_folder, "--out", tmp_path / "run"]
    words += ["--batch-size", 3, "--threads", 1, "--log-every", 1, "--save-every", 5, "--steps"]
    command = [*COMMAND, *map(str, words), "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        next(line for line in first.stderr if line.startswith("step "))
        second = run(capsys, *words, 7)
        assert (second.code, second.out) == (3, "")
        assert f"is in use by process {first.pid} on " in second.line
        first.send_signal(signal.SIGTERM)
        out, err = first.communicate(timeout=60)
    assert (first.returncode, out) == (130, ""), err
    last = max((tmp_path / "run" / "checkpoints").glob("step-*.pt"))
    last.write_bytes(last.read_bytes()[:-100])
    start = time.process_time()
    third = run(capsys, *words, 100_000)
    assert (third.code, third.out) == (3, "")
    assert last.name in third.err
    assert time.process_time() - start < 20
