"""One bad picture costs one row, whatever it is, and never much memory or time."""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
from ends import STATUS, harmless, process, run
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcond.cli.main import main

HOSTILE_NAME = "fox\n\x1b[2J\u202e\t<img src=x onerror=alert(1)>=cmd|'x'.png"
LARGEST_MEMORY = 1_500_000_000  # bytes of the whole process: torch and the model take a third of it


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, *, depth: int = 8, rows: int | None = None, text: bytes = b"") -> bytes:
    """A grey PNG whose header claims a size; rows: the number that is really there."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width * depth // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    more = _chunk(b"zTXt", b"parameters\0\0" + zlib.compress(text, 9)) if text else b""
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + more + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _written(folder: Path) -> tuple[set[str], set[str]]:
    """Fill a folder. Returns the names of pictures that can be scored, and of those that cannot."""
    files = {
        "thin.png": _png(1, 2_000_000),
        "wide.png": _png(200_000, 1),
        "grey16.png": _png(6000, 6000, depth=16),
        "commas.png": _png(32, 32, text=b"a fox, " * 60_000),
    }
    bad = {
        "claims.png": _png(100_000, 100_000, rows=1),
        "cut.png": _png(64, 64)[:60],
        "bomb.png": _png(32, 32, text=b", " * 5_000_000),
        "empty.png": b"",
        "page.png": b"<svg onload='alert(1)'/>",
        "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "screen.gif": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\x01\0\0;",
    }
    for name, content in {**files, **bad}.items():
        (folder / name).write_bytes(content)
    Image.new("RGB", (32, 32), "red").save(folder / HOSTILE_NAME)
    half = np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)
    Image.fromarray(half).save(folder / "float.tif")
    Image.fromarray((half * 255).round().astype(np.uint8)).save(folder / "bytes.tif")
    Image.fromarray(half * np.float32("nan")).save(folder / "nan.tif")
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "dangling.png").symlink_to("nowhere")
    (folder / "circle.png").symlink_to("circle.png")
    good = {*files, HOSTILE_NAME, "float.tif", "bytes.tif"}
    return good, {*bad, "nan.tif", "pipe.png", "device.png", "dangling.png", "circle.png"}


def test_each_bad_picture_is_a_row_and_the_others_are_scored(dual_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    good, bad = _written(folder)
    linux = {STATUS: str(tmp_path / "status")} if Path("/proc/self/status").exists() else {}
    done = process(
        "rerank", folder, "--prompt", "a fox", "--model", dual_folder, "--json", stdin="y\n" * 9, environment=linux
    )
    assert done.code == 0, done.err
    rows = {Path(row["path"]).name: row for row in map(json.loads, done.out.splitlines())}
    assert {name for name, row in rows.items() if row["rank"] is not None} == good
    assert {name for name, row in rows.items() if row["error"]} == bad
    assert all(harmless(row["error"] or "") for row in rows.values())
    assert rows["float.tif"]["cosine"] == pytest.approx(rows["bytes.tif"]["cosine"], abs=1e-3)
    assert harmless(done.err)
    for line in (tmp_path / "status").read_text().splitlines() if linux else ():
        if line.startswith("VmHWM:"):
            assert int(line.split()[1]) * 1024 < LARGEST_MEMORY


def test_a_list_ended_by_nul_names_pictures_whatever_is_in_their_names(
    dual_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """`find -print0 | clipcond rerank --files-from - --print0 | xargs -0`, with nothing between that reads lines."""
    names = [HOSTILE_NAME, "two\nlines.png", " blank .png", "*.png", "-p.png", os.fsdecode(b"\xff.png")]
    for name in names:
        Image.new("RGB", (32, 32), "red").save(tmp_path / name)
    paths = [os.fsencode(tmp_path / name) for name in names]
    given = b"\0".join([*paths, os.fsencode(tmp_path / "gone\n\x1b[2J.png"), b""])
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(given)))
    words = ("rerank", "--files-from", "-", "-p", "a fox", "--print0", "--model", dual_folder)
    assert main(list(map(str, words))) == 0
    out, err = capfdbinary.readouterr()
    assert sorted(out.split(b"\0")) == sorted([b"", *paths])
    assert harmless(err.decode())


def test_a_list_of_no_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list").write_bytes(b"\0\0")
    for words, code, message in (
        (("--files-from", tmp_path / "list"), 3, "names no file"),
        (("--files-from", tmp_path / "a\x1b[2J"), 3, "no such file"),
        (("--files-from", tmp_path), 3, "Is a directory"),
        (("--files-from", "/dev/zero"), 3, "is no list of names"),
        (("-",), 2, "--files-from - reads their names"),
        (("--files-from", "x", "--pairs", "y"), 2, "leave the others out"),
        (("--files-from", "x", "--undo", "y"), 2, "leave the others out"),
    ):
        done = run(capsys, "rerank", *words)
        assert (done.code, done.out) == (code, "")
        assert message in done.err
        assert harmless(done.err)


def test_names_and_prompts_of_pictures_are_inert_on_a_terminal(
    dual_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, prompt in ((HOSTILE_NAME, "a \x1b]0;owned\x07 fox"), ("long.png", "a fox, " * 60_000)):
        text = PngInfo()
        text.add_text("parameters", f"{prompt}\nSteps: 1, Sampler: x\u202e, Seed: 1")
        Image.new("RGB", (32, 32), "red").save(tmp_path / name, pnginfo=text)
    done = run(capsys, "rerank", tmp_path, "--model", dual_folder)
    assert done.code == 0
    assert harmless(done.out + done.err)
    assert "too large to be a prompt (420,0" in " ".join(done.out.split())
    assert len(done.err.splitlines()) == 1
