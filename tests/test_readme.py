"""Every command and every Python block of README.md and of the guides runs as it stands, in order, in one folder.

Those of README.md run twice in a row: a reader who tries one again must not be refused.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TWICE = ("README.md",)
GUIDES = ["mini", "wildcards-and-schedules", "conditioning", "training", "rerank", "explain"]
PAGES = ["README.md", *(f"docs/{guide}.md" for guide in GUIDES)]

pytestmark = pytest.mark.skipif(
    not (ROOT / "clipcond" / "mini" / "weights").is_dir(), reason="the embedded model is not in this checkout"
)


def commands(block: str) -> list[list[str]]:
    """The lines after `$ `, without their comments; a backslash continues a line."""
    joined = block.replace("\\\n", " ")
    return [shlex.split(line[2:], comments=True) for line in joined.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert blocks, f"{page} has no blocks to run"
    for number, (kind, block) in enumerate(blocks * (2 if page in TWICE else 1)):
        if kind == "python":
            runs = [[sys.executable, "-W", "error::DeprecationWarning:clipcond", "-c", block]]
        else:
            runs = [
                [sys.executable, "-m", "clipcond.cli", *rest] for name, *rest in commands(block) if name == "clipcond"
            ]
        for run in runs:
            done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=300)
            assert done.returncode == 0, f"{page}, block {number}: {run[-1][:300]}\n{done.stderr[-3000:]}"
