"""Every command and every Python block of README.md and of the guides runs as it stands, in order, in one folder.

Those of README.md run twice in a row: a reader who tries one again must not be refused.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUNNER = ROOT / "tests" / "page_runner.py"
TWICE = ("README.md",)
GUIDES = [
    "mini",
    "wildcards-and-schedules",
    "conditioning",
    "explain",
    "training",
    "rerank",
    "find",
    "models",
    "weighting",
    "steer",
]
PAGES = ["README.md", *(f"docs/{guide}.md" for guide in GUIDES)]

pytestmark = pytest.mark.skipif(
    not all((ROOT / "clipcond" / part).is_dir() for part in ("mini/weights", "emoji")),
    reason="the embedded models are not in this checkout",
)


IN_A_SHELL = f'set -o pipefail; clipcond() {{ {shlex.quote(sys.executable)} -m clipcond.cli "$@"; }}; '


def commands(block: str) -> list[list[str]]:
    """The lines after `$ ` that call clipcond, without their comments; a backslash continues a line, a pipe takes a shell."""
    joined = block.replace("\\\n", " ")
    lines = [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if "|" in words and "clipcond" in words:
            found.append(["bash", "-c", IN_A_SHELL + line])
        elif words[0] == "clipcond":
            found.append(words)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert blocks, f"{page} has no blocks to run"
    shutil.copytree(ROOT / "docs" / "images" / "emoji", tmp_path / "docs" / "images" / "emoji")
    runs: list[list[str]] = []
    places = []
    for number, (kind, block) in enumerate(blocks * (2 if page in TWICE else 1)):
        found = [["python", block]] if kind == "python" else commands(block)
        runs += found
        places += [f"{page}, block {number}"] * len(found)
    for run, place, done in zip(runs, places, run_all(runs, tmp_path), strict=True):
        assert done["code"] == 0, f"{place}: {' '.join(run)[:300]}\n{done['err']}"


def run_all(runs: list[list[str]], folder: Path) -> list[dict]:
    """Run each in a process of its own, in order, in one folder. Without `fork` each loads its libraries anew."""
    if hasattr(os, "fork"):
        done = subprocess.run(
            [sys.executable, str(RUNNER)],
            input=json.dumps(runs),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=900,
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(answers) == len(runs), f"{len(answers)} of {len(runs)} ran\n{done.stderr[-3000:]}"
        return answers
    answers = []
    for run in runs:
        how = {
            "python": [sys.executable, "-W", "error::DeprecationWarning:clipcond", "-c"],
            "clipcond": [sys.executable, "-m", "clipcond.cli"],
        }.get(run[0], run[:1])
        done = subprocess.run([*how, *run[1:]], cwd=folder, capture_output=True, encoding="utf-8", timeout=300)
        answers.append({"code": done.returncode, "out": done.stdout, "err": done.stderr[-3000:]})
    return answers
