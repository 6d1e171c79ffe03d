"""`clipcond tokens --stats`: a collection in the terminal, as JSON and as a page."""

from __future__ import annotations

import io
import json
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from clipcond.cli import main
from clipcond.cli.tokens_stats import bar_of, show_survey
from clipcond.prompt.analysis.collection import survey

PROMPTS = ["a red fox, best quality", "a dog by rutkowski, best quality", "", "fox " * 80]


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    return path


def drawn(prompts: list[str], width: int) -> str:
    file = io.StringIO()
    show_survey(survey(prompts), Console(file=file, width=width, highlight=False, markup=False))
    return file.getvalue()


def test_the_view(file, capsys) -> None:
    assert main(["tokens", "--file", str(file), "--stats"]) == 0
    seen = capsys.readouterr()
    lines = seen.out.splitlines()
    assert lines[0] == "read as plain  4 prompts · 1 over 75 tokens (25.0%) · 0 over 150"
    assert "longest 80; 5 lost in stock pipelines" in seen.out
    assert any(line.startswith("       6–10 ") and line.endswith("█ 2") for line in lines)
    assert any("a stock pipeline cuts from here on (25.0%)" in line for line in lines)
    assert lines.index("most split words  (tokens × times)") < lines.index("       2 × 1  rutkowski")
    assert lines[-2:] == ["most common phrases  (times)", "           2  best quality"]
    assert seen.err == ""


def test_the_limit_is_that_of_the_family(tmp_path, capsys) -> None:
    path = tmp_path / "long.txt"
    path.write_text("fox " * 80 + "\n" + "fox " * 130 + "\n")
    assert main(["tokens", "--file", str(path), "--stats", "--family", "hidream"]) == 0
    shown = capsys.readouterr().out
    assert "1 over 126 tokens (50.0%) · 0 over 252" in shown
    assert "longest 130; 4 lost in stock pipelines" in " ".join(shown.split())
    bars = shown.split("a stock pipeline cuts from here on (50.0%)")
    assert bars[0].splitlines()[-2].split()[0] == "121–126"
    assert bars[1].splitlines()[1].split()[0] == "127–132"


def test_json_is_the_survey_and_nothing_else(file, capsys) -> None:
    assert main(["tokens", "--file", str(file), "--stats", "--json"]) == 0
    seen = capsys.readouterr()
    assert json.loads(seen.out) == survey(PROMPTS).to_json()
    assert (seen.out.count("\n"), seen.err) == (1, "")


def test_a_check_can_fail(file, tmp_path, capsys) -> None:
    assert main(["tokens", "--file", str(file), "--stats", "--fail-on-truncation"]) == 1
    short = tmp_path / "short.txt"
    short.write_text("a fox\n")
    assert main(["tokens", "--file", str(short), "--stats", "--fail-on-truncation"]) == 0
    assert "cuts from here on" not in capsys.readouterr().out.rpartition("read as plain")[2]


def test_standard_input(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a fox\na dog\n")))
    assert main(["tokens", "--file", "-", "--stats"]) == 0
    assert "2 prompts · 0 over 75 tokens (0.0%)" in capsys.readouterr().out


def test_an_empty_file(tmp_path, capsys) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    assert main(["tokens", "--file", str(empty), "--stats"]) == 0
    assert capsys.readouterr().out.startswith("read as plain  0 prompts")


@pytest.mark.parametrize("width", [40, 120])
def test_no_bar_is_wider_than_the_terminal(width: int) -> None:
    shown = drawn(["fox " * 5] * 1234 + ["漢字 " * 90 + ", x"] * 2 + ["x" * 300 + ", y"] * 2, width)
    rows = shown.partition("lengths\n")[2].splitlines()
    assert len(rows) > 8
    assert max(map(cell_len, rows)) <= width


def test_the_smallest_bar_is_seen() -> None:
    assert bar_of(0, 10) == ""
    assert bar_of(1e-9, 10) == "▏"
    assert bar_of(0.5, 10) == "█" * 5
    assert bar_of(1, 10) == "█" * 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a fox", "--stats"], "--stats needs --file FILE"),
        (["--file", "x", "--stats", "--compare", "a1111"], "--stats counts one dialect; leave out --compare"),
        (
            ["--file", "x", "--stats", "--family", "sana"],
            "--stats counts the tokens of CLIP, which sana does not read with",
        ),
        (["--file", "x", "--explain"], "--explain is about one PROMPT; leave out --file"),
        (["--file", "x", "--live"], "--live takes no --file"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(words: list[str], message: str, capsys) -> None:
    assert main(["tokens", *words]) == 2
    assert message in capsys.readouterr().err
