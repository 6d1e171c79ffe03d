"""What several files say about the distribution is the same; `scripts/check_wheel.py` looks at what is built."""

import re
import sys
from pathlib import Path

import pytest

import clipcond

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = [
    line
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def name_of(requirement):
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-")


def test_every_dependency_is_pinned_in_the_tested_set():
    project = PROJECT["project"]
    extras = [one for name, wanted in project["optional-dependencies"].items() for one in wanted if name != "xformers"]
    wanted = {name_of(one) for one in (*project["dependencies"], *extras)}
    assert wanted - {name_of(pin) for pin in PINS} == set()


def test_every_pin_is_exact_and_says_for_which_python():
    for pin in PINS:
        assert re.fullmatch(r"[\w.-]+==[\w.]+( ; python_version (>=|<) \"3\.1\d\")?", pin), pin


def test_the_version_is_one():
    assert PROJECT["project"]["version"] == clipcond.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{clipcond.__version__}]" in changes or "## [Unreleased]" in changes


def test_no_ignore_rule_matches_what_must_ship():
    rules = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert not [rule for rule in rules if re.search(r"weights|safetensors|\.bin|\.pt\b|clipcond/|templates", rule)]


def test_this_python_is_a_supported_one():
    least = PROJECT["project"]["requires-python"]
    assert least == ">=3.10"
    assert sys.version_info >= (3, 10)
