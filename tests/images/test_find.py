"""Which files a command line means."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipcond.images.find import find_pictures


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.png", "a.JPG", "note.txt", ".hidden.png", "sub/c.webp", ".git/d.png", "odd[1].png", "e.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*sources: str, recursive: bool = False) -> list[str]:
    return [path.as_posix() for path in find_pictures(sources, recursive=recursive).paths]


def test_a_folder_is_its_pictures_in_order(tree: Path) -> None:
    assert names(".") == ["a.JPG", "b.png", "odd[1].png"]
    assert names(".", recursive=True) == ["a.JPG", "b.png", "odd[1].png", "sub/c.webp"]
    assert names(str(tree / "sub")) == [(tree / "sub" / "c.webp").as_posix()]


def test_patterns_are_expanded_here(tree: Path) -> None:
    assert names("*.png") == ["b.png", "odd[1].png"]
    assert names("**/*.webp") == ["sub/c.webp"]
    assert names("s?b") == ["sub/c.webp"]


def test_a_file_that_looks_like_a_pattern_is_itself(tree: Path) -> None:
    assert names("odd[1].png") == ["odd[1].png"]


def test_files_stand_for_themselves_even_if_missing(tree: Path) -> None:
    assert names("note.txt", "gone.png") == ["note.txt", "gone.png"]


def test_each_once_in_the_order_given(tree: Path) -> None:
    assert names("b.png", ".", "./b.png", str(tree / "b.png")) == ["b.png", "a.JPG", "odd[1].png"]


def test_sources_without_pictures_are_named(tree: Path) -> None:
    found = find_pictures(["b.png", "*.tiff", "folder.png"])
    assert found.empty == ("*.tiff", "folder.png")
