"""The command line as a person meets it: in this process, or in one of its own where a process matters."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import pytest

from clipcond.cli.main import main

STATUS = (
    "CLIPCOND_TEST_STATUS"  # names the file for what Linux says of the process at its end, its peak memory among it
)
COMMAND = (
    sys.executable,
    "-c",
    "import os, shutil, sys\nfrom clipcond.cli.main import main\ncode = main()\n"
    f"if os.environ.get({STATUS!r}):\n    shutil.copyfile('/proc/self/status', os.environ[{STATUS!r}])\nsys.exit(code)",
)
TURNS_TEXT = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line that stands on stderr; harmless to a terminal."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert harmless(lines[0]), ascii(lines[0])
        return lines[0]


def harmless(text: str) -> bool:
    """True if text moves no cursor, steers no terminal and turns no direction; line feeds and tabs are fine."""
    return all(
        each in "\n\t" or (unicodedata.category(each) != "Cc" and unicodedata.bidirectional(each) not in TURNS_TEXT)
        for each in text
    )


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Ended:
    """The command line in this process."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    return Ended(code, *capsys.readouterr())


def process(
    *words: str | Path, stdin: str = "", seconds: float = 100, environment: dict[str, str] | None = None
) -> Ended:
    """The command line in a process of its own."""
    command = [*COMMAND, *map(str, words)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **(environment or {})}
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, env=env)
    return Ended(done.returncode, done.stdout, done.stderr)
