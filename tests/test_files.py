"""Files are written whole or not at all, never over another unasked, and every failure names the file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from clipcond.errors import DataError, OutputExists
from clipcond.files import (
    UNFINISHED,
    BoundedFolder,
    copy_file,
    link_file,
    move_file,
    refuse_to_overwrite,
    write_by_name,
    write_file,
    writing,
    writing_folder,
)

Limit = Callable[[int], AbstractContextManager[None]]


def test_writes_text_as_utf8_and_bytes_as_they_are(tmp_path: Path) -> None:
    assert write_file(tmp_path / "a", "füchse\n").read_bytes() == "füchse\n".encode()
    assert write_file(str(tmp_path / "b"), b"\r\n").read_bytes() == b"\r\n"


def test_never_writes_over_a_file_unasked(tmp_path: Path) -> None:
    file = write_file(tmp_path / "a", "mine")
    with pytest.raises(OutputExists, match="a is there already; name another file, nothing is overwritten"):
        write_file(file, "theirs")
    with pytest.raises(OutputExists, match="say --force, nothing"):
        write_file(file, "theirs", otherwise="say --force")
    assert file.read_text() == "mine"
    assert write_file(file, "new", overwrite=True).read_text() == "new"


def test_a_link_that_dangles_is_in_the_way_too(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExists, match="link is there already"):
        refuse_to_overwrite(tmp_path / "link")
    with pytest.raises(OutputExists, match="link is there already"):
        write_file(tmp_path / "link", "")


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    def slow_writer() -> None:
        with writing(tmp_path / "a") as file:
            file.write(b"ours")
            (tmp_path / "a").write_text("theirs")

    with pytest.raises(OutputExists, match="a is there already"):
        slow_writer()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path: Path, file_size_limit: Limit, overwrite: bool) -> None:
    if overwrite:
        write_file(tmp_path / "a", "before")
    with file_size_limit(1000), pytest.raises(OSError, match=r"File too large: '.*/a'"):
        write_file(tmp_path / "a", b"x" * 100_000, overwrite=overwrite)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"] * overwrite


def test_a_folder_that_is_not_there_is_named_by_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '.*/no/a'"):
        write_file(tmp_path / "no" / "a", "")


@pytest.mark.parametrize(
    "error",
    [DataError("bad"), OSError("cannot write mode"), FileNotFoundError(2, "gone", "other"), KeyboardInterrupt()],
)
def test_what_goes_wrong_in_the_block_passes_and_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def writer() -> None:
        with writing(tmp_path / "a") as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)) as caught:
        writer()
    assert caught.value is error
    assert not list(tmp_path.iterdir())


def test_files_get_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        file = write_file(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write_file(tmp_path / "a", "mine")
    with pytest.raises(OutputExists, match="a is there already"):
        write_file(tmp_path / "a", "theirs")
    assert move_file(tmp_path / "a", tmp_path / "b").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_moves_and_never_over_another(tmp_path: Path) -> None:
    file, other = write_file(tmp_path / "a", "mine"), write_file(tmp_path / "b", "theirs")
    with pytest.raises(OutputExists, match=r"b is there already; .*a stays where it is, nothing is overwritten"):
        move_file(file, other)
    assert (file.read_text(), other.read_text()) == ("mine", "theirs")
    assert move_file(file, tmp_path / "c").read_text() == "mine"
    assert not file.exists()


def test_a_copy_has_the_times_and_mode_and_is_never_over_another(tmp_path: Path) -> None:
    file = write_file(tmp_path / "a", "mine")
    os.utime(file, ns=(10**18, 10**18 + 1))
    file.chmod(0o640)
    copy = copy_file(file, tmp_path / "b")
    assert copy.read_text() == file.read_text() == "mine"
    assert (copy.stat().st_mtime_ns, stat.S_IMODE(copy.stat().st_mode)) == (10**18 + 1, 0o640)
    with pytest.raises(OutputExists, match="b is there already"):
        copy_file(file, copy)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to move to")
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_moves_to_another_file_system(tmp_path: Path, elsewhere: Path) -> None:
    file = write_file(tmp_path / "a", b"x" * 3_000_000)
    os.utime(file, ns=(10**18, 10**18))
    assert move_file(file, elsewhere / "a").read_bytes() == b"x" * 3_000_000
    assert (elsewhere / "a").stat().st_mtime_ns == 10**18
    assert not file.exists()
    write_file(file, "mine")
    with pytest.raises(OutputExists, match=r"a is there already; .*a stays where it is, nothing is overwritten"):
        move_file(file, elsewhere / "a")
    assert file.read_text() == "mine"


def test_a_move_to_another_file_system_that_fails_leaves_the_file(
    tmp_path: Path, elsewhere: Path, file_size_limit: Limit
) -> None:
    file = write_file(tmp_path / "a", b"x" * 100_000)
    with file_size_limit(1000), pytest.raises(OSError, match="File too large"):
        move_file(file, elsewhere / "a")
    assert file.read_bytes() == b"x" * 100_000
    assert not list(elsewhere.iterdir())


def test_a_bounded_folder_keeps_what_was_used_last(tmp_path: Path) -> None:
    folder = BoundedFolder(tmp_path, 10_000, ".x")
    for key in "abc":
        folder.write(key, key.encode() * 1000)
    for age, key in enumerate("bca"):
        os.utime(tmp_path / f"{key}.x", (1000 + age, 1000 + age))
    (tmp_path / "other.txt").write_text("o" * 50_000)
    (tmp_path / f".old.x.1{UNFINISHED}").write_text("abandoned")
    os.utime(tmp_path / f".old.x.1{UNFINISHED}", (0, 0))
    BoundedFolder(tmp_path, 3_500, ".x").write("d", b"d" * 1000)
    assert {path.name for path in tmp_path.iterdir()} == {"c.x", "a.x", "d.x", "other.txt"}
    assert folder.read("b") is None
    assert folder.read("d") == b"d" * 1000


def test_a_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), writing_folder(tmp_path / "new") as folder:
        folder.joinpath("missing", "half").write_text("x")
    assert list(tmp_path.iterdir()) == []
    with writing_folder(tmp_path / "new") as folder:
        (folder / "whole").write_text("1")
    with pytest.raises(OutputExists, match="nothing is overwritten"), writing_folder(tmp_path / "new"):
        pass
    with pytest.raises(KeyError), writing_folder(tmp_path / "new", overwrite=True):
        raise KeyError
    with writing_folder(tmp_path / "new", overwrite=True) as folder:
        (folder / "whole").write_text("2")
    assert (tmp_path / "new" / "whole").read_text() == "2"
    assert [each.name for each in tmp_path.iterdir()] == ["new"]


def test_a_folder_with_more_in_it_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "diary").write_text("mine")
    with pytest.raises(OutputExists, match="also holds diary"), writing_folder(tmp_path / "new", overwrite=True):
        pass
    assert (tmp_path / "new" / "diary").read_text() == "mine"


def test_a_linked_file_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    assert link_file(tmp_path / "a", tmp_path / "b").samefile(tmp_path / "a")
    with pytest.raises(OutputExists, match="is not linked to it"):
        link_file(tmp_path / "a", tmp_path / "b")


def test_a_library_writes_by_name(tmp_path: Path) -> None:
    def replacing(name: str) -> None:
        (tmp_path / "other").write_text("new")
        (tmp_path / "other").replace(name)

    assert write_by_name(tmp_path / "a", replacing).read_text() == "new"
    with pytest.raises(OutputExists):
        write_by_name(tmp_path / "a", replacing)

    def failing(name: str) -> None:
        Path(name).write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write_by_name(tmp_path / "a", failing, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "new"
