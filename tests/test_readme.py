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
GUIDES = ["mini", "wildcards-and-schedules", "conditioning", "training", "rerank"]
PAGES = ["README.md", *(f"docs/{guide}.md" for guide in GUIDES)]

pytestmark = pytest.mark.skipif(
    not (ROOT / "clipcond" / "mini" / "weights").is_dir(), reason="the embedded model is not in this checkout"
)


CLIPCOND = [sys.executable, "-m", "clipcond.cli"]
IN_A_SHELL = f'set -o pipefail; clipcond() {{ {shlex.join(CLIPCOND)} "$@"; }}; '


def commands(block: str) -> list[list[str]]:
    """The lines after `$ ` that call clipcond, without their comments; a backslash continues a line, a pipe takes a shell."""
    joined = block.replace("\\\n", " ")
    lines = [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
    found = []
    for line in lines:
        name, *rest = words = shlex.split(line, comments=True)
        if "|" in words and "clipcond" in words:
            found.append(["bash", "-c", IN_A_SHELL + line])
        elif name == "clipcond":
            found.append([*CLIPCOND, *rest])
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert blocks, f"{page} has no blocks to run"
    for number, (kind, block) in enumerate(blocks * (2 if page in TWICE else 1)):
        if kind == "python":
            runs = [[sys.executable, "-W", "error::DeprecationWarning:clipcond", "-c", block]]
        else:
            runs = commands(block)
        for run in runs:
            done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=300)
            assert done.returncode == 0, f"{page}, block {number}: {run[-1][:300]}\n{done.stderr[-3000:]}"
