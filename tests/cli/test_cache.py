"""`clipcond cache` on the embeddings of a tiny model."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from PIL import Image

from clipcond.cli import main


@pytest.fixture
def filled(dual_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPCOND_CACHE", str(tmp_path / "cache"))
    for colour in ("red", "lime"):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{colour}.png")
    assert main(["rerank", str(tmp_path), "-p", "a", "--json", "--model", str(dual_folder)]) == 0
    return tmp_path / "cache"


def test_the_cache_is_shown_pruned_and_cleared(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["cache"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(str(filled / "embeddings.sqlite"))
    assert "2 embeddings" in out
    assert main(["cache", "prune", "--to", "1GB"]) == 0
    assert capsys.readouterr().out.startswith("0 embeddings removed\n")
    assert main(["cache", "clear", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["removed"], report["embeddings"], report["problems"]) == (2, 0, [])


def test_indexes_are_shown_and_cleared(filled: Path, dual_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = filled.parent
    assert main(["search", str(pictures), "a", "--index", "--json", "--model", str(dual_folder)]) == 0
    capsys.readouterr()
    assert main(["cache"]) == 0
    assert f"index of {pictures} (" in capsys.readouterr().out
    assert main(["cache", "clear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["indexes"] == []
    assert not any((filled / "indexes").iterdir())


def test_a_cache_of_an_earlier_version_is_no_failure(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(filled / "embeddings.sqlite") as connection:
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    capsys.readouterr()
    assert main(["cache"]) == 0
    out, err = capsys.readouterr()
    assert err.endswith("was of an earlier version; its 2 embeddings are made again\n")
    assert "0 embeddings" in out


def test_no_cache_leaves_no_trace(
    dual_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIPCOND_CACHE", str(tmp_path / "cache"))
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    call = ["rerank", str(tmp_path / "a.png"), "-p", "a", "--json", "--model", str(dual_folder)]
    assert main([*call, "--no-cache"]) == 0
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["drop"], "no action 'drop'; expected info, prune or clear"),
        (["prune", "--to", "much"], "expected a size such as 500MB"),
        (["clear", "--to", "1GB"], "--to is a size for prune"),
    ],
)
def test_wrong_calls(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["cache", *words]) == 2
    assert message in capsys.readouterr().err
