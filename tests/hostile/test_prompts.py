"""No text makes a command that reads prompts fail, run for minutes, or lose something without a word."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from ends import harmless, process, run

from clipcond.prompt.dialects.parse import parse
from clipcond.prompt.items import Embedding, Words
from clipcond.prompt.wildcards import MAX_LENGTH, expand

Capture = pytest.CaptureFixture[str]
TURKISH = "İSTANBUL'DA GÜNEŞLİ BİR GÜN, KIRMIZI TİLKİ, YEŞİL AĞAÇ İÇİN"


def test_turkish_capitals_at_every_border_of_a_chunk_are_counted(tmp_path: Path) -> None:
    lines = ["a " * before + "İ," for before in range(70, 78)] + [TURKISH * times for times in range(1, 12)]
    (tmp_path / "prompts.txt").write_text("\n".join(lines), encoding="utf-8")
    done = process("tokens", "--file", tmp_path / "prompts.txt", "--dialect", "a1111", "--json")
    assert (done.code, done.err) == (0, "")
    assert [json.loads(line)["prompt"] for line in done.out.splitlines()] == lines


def test_every_code_point_that_a_file_can_hold_is_counted(tmp_path: Path, capsys: Capture) -> None:
    points = [chr(point) for point in range(0x20, 0x110000, 37) if not 0xD800 <= point < 0xE000]
    lines = ["".join(points[at : at + 300]) for at in range(0, len(points), 300)]
    (tmp_path / "prompts.txt").write_text("\n".join(lines), encoding="utf-8", newline="\n")
    done = run(capsys, "tokens", "--file", tmp_path / "prompts.txt")
    assert (done.code, len(done.err.splitlines())) == (0, 1)
    assert harmless(done.out)


@pytest.mark.parametrize(
    "prompt", ["\udc80 fox", "a \ud83d", "a\x1b]0;owned\x07\x9b2J\u202e fox", "(" * 3000, "<lora:" * 2000]
)
def test_no_prompt_steers_the_terminal_or_raises(prompt: str, capsys: Capture) -> None:
    for words in (
        ["tokens", prompt],
        ["tokens", prompt, "--dialect", "a1111", "--explain"],
        ["translate", prompt, "--to", "comfy"],
    ):
        done = run(capsys, *words)
        assert done.code == 0
        assert harmless(done.err)
        assert words[0] == "translate" or harmless(done.out)  # a translation is the prompt, as it was given


@pytest.mark.parametrize(
    ("prompt", "source"),
    [("(E=mc2:1.3)", "a1111"), ("(watermark:-1)", "a1111"), ("withLora(>)", "comfy"), ("embedding:AND", "plain")],
)
@pytest.mark.parametrize("target", ["a1111", "comfy", "compel"])
def test_a_translation_arrives_or_says_what_is_lost(prompt: str, source: str, target: str, capsys: Capture) -> None:
    done = run(capsys, "translate", prompt, "--from", source, "--to", target, "--json")
    document = json.loads(done.out)
    assert document["lost"] or _read(document["text"], target) == _read(prompt, source)


def _read(prompt: str, dialect: str) -> list[tuple[str, float]]:
    """Each character that is no blank, in lower case, with its weight."""
    return [
        (character, item.weight)
        for item in parse(prompt, dialect).items
        if isinstance(item, (Words, Embedding))
        for character in (item.text if isinstance(item, Words) else item.name).lower()
        if not character.isspace()
    ]


def test_lists_of_any_size_keep_to_the_stated_length_and_time(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("".join(f"entry {number}\n" for number in range(40_000)))
    start = time.process_time()
    for template in ("{1000000$$__l__}", "{1000000$$, $$__l__|{1000000$$__l__}}", "${x=__l__}" + "${x}" * 20_000):
        for prompt in expand(template, folders=[tmp_path], count=3).prompts:
            assert len(prompt) <= len(template) + MAX_LENGTH
    assert time.process_time() - start < 10
