"""Pictures known by their bytes."""

from __future__ import annotations

import os
from pathlib import Path

from clipcond.encode.content_key import KEY_BYTES, FileState, content_key, file_key, file_state


def test_a_files_key_is_that_of_its_bytes(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(content)
    found = file_key(tmp_path / "a")
    assert found is not None
    assert found[0] == content_key(content)
    assert len(found[0]) == KEY_BYTES
    assert found[1] == file_state(tmp_path / "a")
    assert content_key(content[:-1]) != content_key(content)


def test_what_is_no_regular_file_has_no_key_and_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "dangling", tmp_path / "none", "a\0b", "/dev/zero"):
        assert file_state(path) is None
        assert file_key(path) is None


def test_a_state_is_settled_two_seconds_after_the_last_change() -> None:
    state = FileState(modified_ns=10 * 10**9, changed_ns=12 * 10**9, size=1)
    assert not state.settled(13.9)
    assert state.settled(14.1)
