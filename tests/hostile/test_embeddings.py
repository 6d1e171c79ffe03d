"""One bad file in a folder of embeddings costs that file."""

from __future__ import annotations

import json
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ends import run

from clipcond.prompt.embeddings import scan


class _Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def _safetensors(path: Path, header: str) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())


def _damaged_archive(path: Path, method: int) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"<owl>": "x" * 2000}))
    content = bytearray(path.read_bytes())
    content[60:80] = bytes(20)
    path.write_bytes(content)


def _nested(path: Path) -> None:
    """A dictionary that holds itself's like 300 times, four deep: 8 billion ways, 5 containers."""
    inner: dict[object, object] = {}
    for _ in range(4):
        inner = dict.fromkeys(range(300), inner)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"string_to_param": inner}))


def test_bad_files_are_listed_and_the_others_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, marker = tmp_path / "embeddings", tmp_path / "it ran"
    folder.mkdir()
    good = {"emb_params": {"dtype": "F32", "shape": [3, 768], "data_offsets": [0, 0]}}
    _safetensors(folder / "owl.safetensors", json.dumps(good))
    for name, header in {
        "null": "null",
        "list": "[1]",
        "infinite": '{"a": {"shape": [Infinity, 768]}}',
        "deep": "[" * 10**5,
    }.items():
        _safetensors(folder / f"{name}.safetensors", header)
    (folder / "claims.safetensors").write_bytes(struct.pack("<Q", 2**62))
    _damaged_archive(folder / "deflate.pt", zipfile.ZIP_DEFLATED)
    _damaged_archive(folder / "lzma.pt", zipfile.ZIP_LZMA)
    _nested(folder / "nested.pt")
    (folder / "runs.bin").write_bytes(pickle.dumps({"<fox>": _Runs(marker)}))
    os.mkfifo(folder / "pipe.pt")
    (folder / "device.pt").symlink_to("/dev/zero")
    (folder / "dangling.bin").symlink_to("nowhere")
    start = time.process_time()
    found = scan(folder)
    assert list(found) == ["owl"]
    assert {path.stem for path, _ in found.unreadable} == {p.stem for p in folder.iterdir()} - {"owl"}
    reasons = {path.stem: reason for path, reason in found.unreadable}
    assert reasons["pipe"] == reasons["device"] == "no regular file"
    assert reasons["dangling"] == "a link to nothing"
    done = run(capsys, "tokens", "an owl", "--embeddings", folder, "--json")
    assert done.code == 0
    assert json.loads(done.out)["encoders"][0]["content_tokens"] == 4
    assert time.process_time() - start < 10
    assert not marker.exists()
