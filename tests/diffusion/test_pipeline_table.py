"""docs/pipelines.md names every class of the installed diffusers that reads CLIP, and what becomes of it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_class_that_reads_clip_is_in_the_table() -> None:
    guide = ROOT / "docs" / "pipelines.md"
    if not guide.is_file():
        pytest.skip("not in a checkout")
    script = runpy.run_path(str(ROOT / "benchmarks" / "pipelines.py"))
    found = script["classes"]()
    named = dict(
        re.findall(r"^\| `(\w+)`(?: \(deprecated\))? \| (.*?) \|", guide.read_text(encoding="utf-8"), re.MULTILINE)
    )
    cells = {each.name: script["row"](each) for each in found}
    assert named.keys() == cells.keys(), (
        "diffusers has other classes: python benchmarks/pipelines.py --write docs/pipelines.md"
    )
    for name, row in cells.items():
        assert named[name] == (row[2] if row[1] == "no" else row[1]), name
