"""The table of finding codes: complete, true, in the guide, and what `strict` refuses."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import clipcond
from clipcond.errors import PromptSyntaxError
from clipcond.prompt.dialects.names import DIALECTS
from clipcond.prompt.dialects.parse import parse
from clipcond.prompt.finding_codes import CODES, SYNTAX_ERRORS, markdown, write_into

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "prompt-language.md"
_MAKERS = {"Finding", "ListProblem", "PlacedFinding", "add", "add_each", "_warn", "_lose", "_unused"}
_CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def codes_in(source: str) -> Iterator[str]:
    """The first arguments of calls that make findings, where they are written out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            value = node.args[0].value
            if name in _MAKERS and isinstance(value, str) and _CODE.fullmatch(value) and len(node.args) > 1:
                yield value


def test_the_table_holds_every_code_that_the_code_makes_and_no_other() -> None:
    made = {code for file in (ROOT / "clipcond").rglob("*.py") for code in codes_in(file.read_text("utf-8"))}
    known = [each.code for each in CODES]
    assert len(known) == len(set(known))
    assert made == set(known)


def test_the_guide_shows_the_table() -> None:
    assert markdown() in GUIDE.read_text("utf-8")


def test_the_table_is_written_in_the_place_of_the_old_one(tmp_path: Path) -> None:
    guide = tmp_path / "guide.md"
    text = GUIDE.read_text("utf-8")
    begin, end = markdown().split("\n")[0], markdown().split("\n")[-1]
    guide.write_text(f"before\n{begin}\nold\n{end}\nbehind\n", "utf-8")
    write_into(guide)
    assert guide.read_text("utf-8") == f"before\n{markdown()}\nbehind\n"
    assert text.count(begin) == text.count(end) == 1


@pytest.mark.parametrize("code", [each for each in CODES if each.example], ids=lambda each: each.code)
def test_each_example_earns_its_code(code) -> None:
    given = {found.code for dialect in DIALECTS for found in parse(code.example, dialect).warnings}
    assert code.code in given


@pytest.mark.parametrize(
    ("prompt", "dialect", "code", "passage"),
    [
        ("a (red fox", "a1111", "unclosed-bracket", "("),
        ("a red) fox (b:1,5)", "a1111", "stray-bracket", ")"),
        ("a (red fox", "comfy", "unclosed-bracket", "("),
        ("cat.swap(", "compel", "bad-call", "cat.swap("),
    ],
)
def test_strict_raises_for_the_first_error_of_syntax(prompt: str, dialect: str, code: str, passage: str) -> None:
    for read in (clipcond.parse, lambda text, dialect, strict: clipcond.plan(text, dialect=dialect, strict=strict)):
        with pytest.raises(PromptSyntaxError, match=f"^{code}: ") as caught:
            read(prompt, dialect, strict=True)
        error = caught.value
        assert error.problem.startswith(code)
        assert (error.source, prompt[error.start : error.end]) == (prompt, passage)


def test_strict_leaves_alone_what_is_odd_but_no_error() -> None:
    for prompt in ("a (wide 16:9) fox", "a fox <lora:x:0.8>", "CATS AND DOGS", ""):
        assert clipcond.parse(prompt, "a1111", strict=True) == clipcond.parse(prompt, "a1111")
    assert clipcond.plan("a (red fox", strict=True).dialect == "plain"


def test_errors_of_syntax_are_findings_of_parse() -> None:
    assert {each.stage for each in CODES if each.code in SYNTAX_ERRORS} == {"parse"}
