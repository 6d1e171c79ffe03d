"""Lists of file names: ended by NUL or one a line, of any bytes, and never more than memory holds."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import DataError, ResourceMissing
from clipcond.images.find import find_pictures
from clipcond.images.path_list import PathList, parse_path_list, read_path_list


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"a.png\0b.png\0", ["a.png", "b.png"]),
        (b"a\nb.png\0", ["a\nb.png"]),
        (b"a.png\0b.png", ["a.png", "b.png"]),
        (b" a \r\0", [" a \r"]),
        (b"a.png\nb c.png\n", ["a.png", "b c.png"]),
        (b"\xef\xbb\xbfa.png\r\n\r\nb.png", ["a.png", "b.png"]),
        (b"", []),
        (b"\n\n", []),
    ],
)
def test_names_end_with_nul_or_else_with_their_line(content: bytes, names: list[str]) -> None:
    assert parse_path_list(content) == PathList(tuple(map(Path, names)))


def test_an_empty_name_is_no_folder() -> None:
    assert parse_path_list(b"a\0\0b\0\0") == PathList((Path("a"), Path("b")), 2)
    assert parse_path_list(b"\0") == PathList((), 1)


@given(st.lists(st.binary(min_size=1).filter(lambda name: b"\0" not in name and b"/" not in name and name != b".")))
@pytest.mark.property
def test_what_print0_writes_comes_back(names: list[bytes]) -> None:
    found = parse_path_list(b"".join(name + b"\0" for name in names))
    assert [os.fsencode(path) for path in found.paths] == names


def test_a_list_comes_from_a_file_or_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list").write_bytes(b"a\0")
    assert read_path_list(str(tmp_path / "list")).paths == (Path("a"),)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"b\0c\0")))
    assert read_path_list("-").paths == (Path("b"), Path("c"))


def test_what_is_no_list_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").write_bytes(b"\n")
    with pytest.raises(DataError, match="empty names no file; expected names, each ended by NUL"):
        read_path_list(str(tmp_path / "empty"))
    with pytest.raises(ResourceMissing, match="none: no such file; give a list of names, or - for standard input"):
        read_path_list(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"cannot read .*: Is a directory"):
        read_path_list(str(tmp_path))
    monkeypatch.setattr("clipcond.images.path_list.LARGEST", 1 << 20)
    with pytest.raises(DataError, match=r"/dev/zero: more than 1 MiB is no list of names"):
        read_path_list("/dev/zero")


def test_listed_names_are_no_patterns_and_no_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Path(name).write_bytes(b"")
    found = find_pictures(["a.png"], listed=[Path("*.png"), Path("~"), Path(), Path("a.png")])
    assert found.paths == (Path("a.png"), Path("*.png"), Path("~"), Path("b.png"))
