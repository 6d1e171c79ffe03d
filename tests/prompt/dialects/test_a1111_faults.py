"""Faults that trying A1111's dialect showed, each by its name."""

from __future__ import annotations

import pytest

from clipcond.prompt.dialects.parse import parse
from clipcond.prompt.dialects.schedules import ScheduledText, is_scheduled, resolve, schedule_of
from clipcond.prompt.items import Adapter, Break, Compose, Parsed, Schedule, Words
from clipcond.prompt.layout import joined
from clipcond.prompt.plan import PromptPlan, plan
from clipcond.prompt.tokenizer import token_ids


def codes(parsed: Parsed | PromptPlan) -> list[tuple[str, str]]:
    return [(found.code, parsed.prompt[found.start : found.end]) for found in parsed.warnings]


def texts(parsed: Parsed) -> list[tuple[str, float]]:
    return [(item.text, item.weight) for item in parsed if isinstance(item, Words)]


def words_of(planned: PromptPlan) -> list[str]:
    return [token.piece.removesuffix("</w>") for chunk in planned.encoders["clip_l"].chunks for token in chunk.tokens]


# signed times


def test_a_negative_time_is_never_and_earns_no_advice_of_a_weight() -> None:
    assert resolve("park [night::-1]", 10) == ((10, "park "),)
    for prompt in ("park [night::-1]", "park [night:-1]", "park [night:day:+3]", "park [night:-0.5]"):
        parsed = parse(prompt, "a1111")
        assert any(isinstance(item, Schedule) for item in parsed)
        assert parsed.warnings == ()
        assert is_scheduled(prompt)


# AND and the weight of a part


def test_the_weight_of_a_prompt_without_and_is_no_text() -> None:
    parsed = parse("a cat :1.2", "a1111")
    assert texts(parsed) == [("a cat ", 1.0)]
    assert [(item.weight, item.start, item.end) for item in parsed if isinstance(item, Compose)] == [(1.2, 0, 0)]
    assert codes(parsed) == [("prompt-weight", ":1.2")]
    planned = plan("a cat :1.2", dialect="a1111")
    assert (planned.weight, planned.parts, words_of(planned)) == (1.2, (), ["a", "cat"])


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a cat :1.2 # mine", "a cat "),
        ("a cat :1.2 <lora:x:1>", "a cat "),
        ("a cat: 2.", "a cat"),
        ("a cat :1", "a cat "),
        ("wide 16:9", "wide 16"),
        ("a cat :1.2,", "a cat :1.2,"),
        ("(a cat:1.2", "a cat:1.2"),  # a bracket that never closes keeps its number
        ("[a:b:5", "a:b:5"),
        ("a cat :much", "a cat :much"),
        ("1.2", "1.2"),
        (":1.2", ""),
    ],
)
def test_only_a_number_at_the_very_end_weighs_the_prompt(prompt: str, text: str) -> None:
    assert "".join(words for words, _ in texts(parse(prompt, "a1111"))) == text


def test_a_ratio_at_the_end_is_told() -> None:
    assert ("weight-from-ratio", "16:9") in codes(parse("wide 16:9", "a1111"))


def test_and_in_a_negative_prompt_is_a_word() -> None:
    parsed = parse("blurry AND dark :1.2", "a1111", negative=True)
    assert texts(parsed) == [("blurry AND dark :1.2", 1.0)]
    assert codes(parsed) == [("and-is-text", "AND")]
    planned = plan("blurry AND dark", dialect="a1111", negative=True)
    assert planned.parts == ()
    assert words_of(planned) == ["blurry", "and", "dark"]
    assert resolve("[a AND b:c:5]", 10, negative=True) == ((5, "a AND b"), (10, "c"))
    assert resolve("[a AND b:c:5]", 10) == ((10, "[a AND b:c:5]"),)


# schedules, counted


def test_a_scheduled_prompt_is_counted_as_the_longest_text_over_the_steps() -> None:
    prompt = "[fox:" + "red " * 90 + ":0.5]"
    assert plan(prompt, dialect="a1111", steps=20).encoders["clip_l"].content_tokens == 90
    assert len(plan(prompt, dialect="a1111", steps=20).encoders["clip_l"].chunks) == 2
    assert plan(prompt, dialect="a1111").encoders["clip_l"].content_tokens == 1  # the first alternative
    for text, words in (
        ("[fox|red hen|owl] x", ["red", "hen", "x"]),
        ("[a:[b c|d e f]:3]", ["d", "e", "f"]),
        ("[a b:c:30]", ["a", "b"]),
        ("[(a:1.2) b::5] c", ["a", "b", "c"]),
        ("[:a:-1] b", ["a", "b"]),
    ):
        assert words_of(plan(text, dialect="a1111", steps=20)) == words


def test_the_texts_of_a_schedule_are_listed_with_their_steps() -> None:
    schedule = schedule_of("a [cat:dog:.5] [x|y]", 2)
    assert schedule.texts == (
        ScheduledText(first=1, last=1, text="a cat x"),
        ScheduledText(first=2, last=2, text="a dog y"),
    )
    assert schedule_of("[a|b|a]", 6).distinct == ("a", "b")
    assert schedule_of("a", 20).texts == (ScheduledText(first=1, last=20, text="a"),)
    assert schedule_of("[a:b:1.5]", 20, hires_steps=10).texts[0] == ScheduledText(first=1, last=5, text="a")


@pytest.mark.parametrize(
    ("prompt", "unread"),
    [
        ("[a:b:30]", ["b"]),
        ("[a::-1] b", ["a"]),
        ("[a:[c:d:5]:30]", ["[c:d:5]"]),  # not what is inside of it
        ("[[c:d:5]:e:5]", ["d"]),
        ("[a|b|" + "|".join(map(str, range(20))) + "]", ["18", "19"]),
        ("[a:b:5] [a| ]", []),
    ],
)
def test_what_no_step_reads_is_named(prompt: str, unread: list[str]) -> None:
    found = schedule_of(prompt, 20).unread
    assert [prompt[one.start : one.end] for one in found] == unread
    assert {one.message for one in found} <= {"none of the 20 steps reads this"}
    planned = [passage for code, passage in codes(plan(prompt, dialect="a1111", steps=20)) if code == "schedule-unread"]
    assert planned == unread


def test_a_bar_outside_of_an_alternation_ends_all_schedules() -> None:
    parsed = parse("[a:b:5] x | y", "a1111")
    assert codes(parsed) == [("schedules-disabled", "|")]
    assert texts(parsed) == [("a:b:5", pytest.approx(1 / 1.1)), (" x | y", 1.0)]
    for prompt in ("[a:b:5] (x|y)", "[a:b:5] [x|y:3]", "x|[a:b:5]"):
        assert codes(parse(prompt, "a1111"))[0][0] == "schedules-disabled"
        assert not any(isinstance(item, Schedule) for item in parse(prompt, "a1111"))
    for prompt in ("[a:b:5] [x|y]", r"[a:b:5] x \| y", "[a:b:5] # x | y", "[a:b:5] <lora:x|y>"):
        assert any(isinstance(item, Schedule) for item in parse(prompt, "a1111"))
    assert parse("x | y", "a1111").warnings == ()


# comments


@pytest.mark.parametrize(
    ("prompt", "text", "comments"),
    [
        ("a fox # mine", "a fox ", ["# mine"]),
        ("# first\na fox", "\na fox", ["# first"]),
        ("a (fox # x)\nhen:1.2) owl", "a fox \nhen owl", ["# x)"]),
        ("a # <lora:x:1> BREAK AND (b\nc", "a \nc", ["# <lora:x:1> BREAK AND (b"]),
        ("#", "", ["#"]),
        ("fo# x\nx", "fo\nx", ["# x"]),
    ],
)
def test_a_comment_is_not_read_and_told(prompt: str, text: str, comments: list[str]) -> None:
    parsed = parse(prompt, "a1111")
    assert "".join(words for words, _ in texts(parsed)) == text
    assert not any(isinstance(item, (Adapter, Break, Compose)) for item in parsed)
    assert [passage for code, passage in codes(parsed) if code == "comment"] == comments


def test_comments_are_an_option() -> None:
    assert texts(parse("a # b", "a1111", comments=False)) == [("a # b", 1.0)]
    assert words_of(plan("a # b", dialect="a1111")) == ["a"]
    assert words_of(plan("a # b", dialect="a1111", comments=False)) == ["a", "#", "b"]
    assert resolve("# [a:b:5]", 10) == ((10, "# [a:b:5]"),)
    assert resolve("# [a:b:5]", 10, comments=False) == ((5, "# a"), (10, "# b"))
    for dialect in ("plain", "comfy", "compel"):
        assert texts(parse("a # b", dialect)) == [("a # b", 1.0)]


# one text for the tokenizer


@pytest.mark.parametrize(
    ("prompt", "same"),
    [
        ("(masterpiece)(best quality)", "masterpiecebest quality"),
        ("fo(x:1.0)", "fox"),
        ("fo<lora:x:1>x", "fox"),
        ("fo[x:y:5]", "fox"),
        (r"\m/", "m/"),
        (r"fo\x", "fox"),
        ("a,(b:1),c", "a,b,c"),
        ("wow!(!:1)", "wow!!"),
        ("(fo)()(x)", "fox"),
    ],
)
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_neighbours_of_equal_weight_are_one_text(prompt: str, same: str, family: str) -> None:
    for encoder in plan(prompt, dialect="a1111", family=family).encoders.values():
        ids = [token.id for chunk in encoder.chunks for token in chunk.tokens]
        expected = plan(same, family=family).encoders[encoder.name]
        assert ids == [token.id for chunk in expected.chunks for token in chunk.tokens]


def test_neighbours_of_other_weights_or_dialects_are_texts_of_their_own() -> None:
    assert words_of(plan("fo(x:1.2)", dialect="a1111")) == ["fo", "x"]
    assert words_of(plan("fo BREAK x", dialect="a1111")) == ["fo", "x"]
    assert words_of(plan("fo(x:1.0)", dialect="comfy")) == ["fo", "x"]
    assert words_of(plan("(fo)1 (x)1", dialect="compel")) == ["fo", "x"]


def test_joined_words_know_their_places() -> None:
    prompt = r"a fo(\(x:1.0)y"
    (words,) = joined(parse(prompt, "a1111").items)
    assert isinstance(words, Words)
    assert words.text == "a fo(xy"
    assert [prompt[at] for at in words.places[:-1]] == ["a", " ", "f", "o", "\\", "x", "y"]
    assert (words.start, words.end, words.group) == (0, len(prompt), -1)
    for token in plan(prompt, dialect="a1111").encoders["clip_l"].chunks[0].tokens:
        assert prompt[token.start : token.end] == token.text
    assert [item.group for item in joined(parse("((a)b)", "a1111").items) if isinstance(item, Words)] == [2, 1]


def test_a_lone_backslash_is_dropped_and_told() -> None:
    parsed = parse("a\\:b \\\\ \\(c\\) d\\", "a1111")
    assert texts(parsed) == [("a:b \\ (c) d", 1.0)]
    assert [passage for code, passage in codes(parsed) if code == "dropped-backslash"] == ["\\", "\\"]
    assert token_ids("m/") == [token.id for token in plan(r"\m/", dialect="a1111").encoders["clip_l"].chunks[0].tokens]
