"""Which files a command line means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clipcond.errors import ImageError
from clipcond.images.decode import open_image
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


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for place in (tmp_path / "a" / "b" / "1.png", tmp_path / "elsewhere" / "2.png"):
        place.touch()
    (tmp_path / "a" / "0 again").symlink_to(tmp_path / "a" / "b", target_is_directory=True)
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "a" / "out").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    found = find_pictures([tmp_path / "a"], recursive=True)
    assert found.paths == (tmp_path / "a" / "b" / "1.png", tmp_path / "a" / "out" / "2.png")
    assert find_pictures([tmp_path / "a"]).paths == ()


def test_what_cannot_be_read_is_named_and_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "round.png").symlink_to(tmp_path / "round.png")
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0)
    try:
        found = find_pictures([tmp_path], recursive=True).paths
        assert [path.name for path in found][:1] == ["gone.png"]
        assert "round.png" in {path.name for path in found}
        if not os.access(locked, os.R_OK):  # root reads everything
            assert locked in found
            with pytest.raises(ImageError, match="locked: is a folder that cannot be read"):
                open_image(locked)
    finally:
        locked.chmod(0o755)


@pytest.mark.parametrize("name", ["~nobody-of-this-name/a.png", "a\0b.png", "x" * 5000 + ".png"])
def test_names_that_no_system_takes_stand_for_themselves(name: str) -> None:
    assert find_pictures([name]).paths == (Path(name),)
