from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from clipcond.prompt.dialects.detect import plain_findings

_PROMPTS = Path(__file__).parents[4] / "shared" / "data" / "prompts"


@pytest.mark.parametrize(
    ("prompt", "code", "passage"),
    [
        ("a (red fox:1.3) here", "looks-like-a1111", "(red fox:1.3)"),
        ("a (fox: .5 )", "looks-like-a1111", "(fox: .5 )"),
        ("a ((red fox)) here", "looks-like-a1111", "((red fox))"),
        ("a [cat:dog:0.5]", "looks-like-a1111", "[cat:dog:0.5]"),
        ("a fox <lora:fur:0.8>", "looks-like-a1111", "<lora:fur:0.8>"),
        ("a fox BREAK a dog", "looks-like-a1111", "BREAK"),
        ("a fox++ here", "looks-like-compel", "fox++"),
        ("a fox--, here", "looks-like-compel", "fox--"),
        ("a (red fox)1.3", "looks-like-compel", "(red fox)1.3"),
        ("a (red fox)+", "looks-like-compel", "(red fox)+"),
        ('("a fox", "a dog").blend(1, 1)', "looks-like-compel", '("a fox", "a dog").blend('),
        ("a <|endoftext|> fox", "special-token-as-text", "<|endoftext|>"),
        ("a <extra_id_0> fox", "special-token-as-text", "<extra_id_0>"),  # T5's
        ("a fox</s>", "special-token-as-text", "</s>"),
        (r"a fox \(red\)", "leftover-escape", r"\("),
        ("a \udc80 fox", "broken-unicode", "\udc80"),
    ],
)
def test_each_finding_has_its_span(prompt: str, code: str, passage: str) -> None:
    (found,) = plain_findings(prompt)
    assert found.code == code
    assert prompt[found.start : found.end] == passage


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a red fox",
        "a fox (in a box)",
        "TAKE A BREAK NOW",
        "C++ code",
        "a fox -- a dog",
        "16:9 [wide]",
        "a <b> c",
        "18+",
    ],
)
def test_ordinary_text_is_left_alone(prompt: str) -> None:
    assert plain_findings(prompt) == ()


def test_findings_come_in_the_order_of_the_prompt() -> None:
    codes = [found.code for found in plain_findings("a fox++ <|endoftext|> (b:1.2)")]
    assert codes == ["looks-like-compel", "special-token-as-text", "looks-like-a1111"]


@pytest.mark.skipif(not _PROMPTS.is_dir(), reason=f"no test data at {_PROMPTS}")
def test_real_plain_prompts_give_no_warning() -> None:
    prompts = (_PROMPTS / "diffusiondb-466.txt").read_text("utf-8").split("\n")
    with (_PROMPTS / "parti.tsv").open(encoding="utf-8", newline="") as file:
        prompts += [row["Prompt"] for row in csv.DictReader(file, delimiter="\t")]
    assert [prompt for prompt in prompts if plain_findings(prompt)] == []


@pytest.mark.parametrize("unit", ["(", "[:", "a", "-", "+", "(a:", ")", "<a:", '"', "[", ")1", "1", "((a", "\\"])
def test_long_hostile_text_is_read_quickly(unit: str) -> None:
    began = time.process_time()
    plain_findings(unit * 20_000)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("start", ["(a:", ")", "[a:b:", "(a:1"])
@pytest.mark.parametrize("unit", ["9", " ", "9."])
def test_long_numbers_are_read_quickly(start: str, unit: str) -> None:
    began = time.process_time()
    plain_findings(start + unit * 50_000 + "x")
    assert time.process_time() - began < 2
