"""The memory of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipcond.runtime import memory


def test_a_containers_limit_counts_where_it_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = memory.machine_memory()
    assert whole is None or whole > 1 << 28
    (tmp_path / "limit").write_text("1048576\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(memory, "_CONTAINER_LIMITS", (str(tmp_path / "none"), str(tmp_path / "limit")))
    assert memory.machine_memory() == 1048576
