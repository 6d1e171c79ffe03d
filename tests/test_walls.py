"""Laziness proved from outside: a process in which importing a model library fails."""

from __future__ import annotations

import subprocess
import sys

import pytest

WALL = """
import sys
from importlib.machinery import ModuleSpec, PathFinder

class Wall:  # a package may be found (its vocabulary file is read), but not run
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "diffusers", "open_clip", "numpy"}:
            spec = PathFinder.find_spec(name, path) or ModuleSpec(name, None)
            spec.loader = self
            return spec
    def create_module(self, spec):
        raise AssertionError("tried to import " + spec.name)
    def exec_module(self, module):
        raise AssertionError("tried to import " + module.__name__)

sys.meta_path.insert(0, Wall())
"""
RUN = "from clipcond.cli import main\nsys.exit(main(sys.argv[1:]))\n"


def behind_the_wall(code: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WALL + code, *words]
    return subprocess.run(command, input=stdin, capture_output=True, encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ["tokens", "a (red:1.3) fox <|endoftext|>"],
        ["tokens", "a (red:1.3) fox", "--json", "--family", "sdxl"],
        ["tokens", "--file", "-"],
        ["--help"],
        ["tokens", "--help"],
        ["translate", "a (red:1.3) fox", "--to", "comfy"],
        ["--version"],
    ],
)
def test_tokens_and_help_need_no_model_library(words: list[str]) -> None:
    run = behind_the_wall(RUN, *words, stdin="a fox\n")
    assert run.returncode == 0, run.stderr
    assert run.stdout != ""


@pytest.mark.parametrize(
    "code",
    [
        "import clipcond",
        "import clipcond; clipcond.plan('a fox', family='sdxl').to_json()",
        "import clipcond; clipcond.tokenize('a “fox” &amp;', 'openai')",
        "import clipcond; dir(clipcond); clipcond.ClipCondError",
    ],
)
def test_the_torch_free_names_need_no_model_library(code: str) -> None:
    run = behind_the_wall(code)
    assert run.returncode == 0, run.stderr


def test_importing_clipcond_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import clipcond; print(*sorted(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in run.stdout.split() if name.startswith("clipcond")] == ["clipcond", "clipcond._version"]
    assert not {"typer", "rich", "tokenizers", "numpy", "torch"} & set(run.stdout.split())


@pytest.mark.parametrize("library", ["torch", "transformers", "diffusers", "open_clip", "numpy"])
def test_the_wall_stands(library: str) -> None:
    run = behind_the_wall(f"import {library}")
    assert run.returncode != 0
    assert f"tried to import {library}" in run.stderr


def test_a_name_that_needs_torch_runs_into_the_wall() -> None:
    run = behind_the_wall("import clipcond; clipcond.TextTower")
    assert run.returncode != 0
    assert "tried to import torch" in run.stderr
