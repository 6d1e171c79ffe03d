"""Schedules against the golden vectors, and what holds for every prompt."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.prompt.dialects.schedules import resolve

HERE = Path(__file__).parents[2] / "vectors" / "schedules_a1111.json"
SHARED = Path(__file__).resolve().parents[4] / "shared" / "reference" / "vectors" / "schedules_a1111.json"
VECTORS = json.loads(HERE.read_text("utf-8"))["vectors"]
soup = st.text(alphabet="ab [](){}:|\\<>.,150\n", max_size=60)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['prompt']}-{vector['hires_steps']}")
def test_vectors(vector):
    resolved = resolve(vector["prompt"], vector["steps"], vector["hires_steps"])
    expected = vector["expected"]
    if isinstance(expected, dict):
        texts = expected["alternates"]
        expected = [[step, texts[(step - 1) % len(texts)]] for step in range(1, vector["steps"] + 1)]
    assert [list(pair) for pair in resolved] == expected


@pytest.mark.skipif(not SHARED.is_file(), reason="../shared/reference is not beside this checkout")
def test_the_vectors_here_are_the_reference():
    assert json.loads(SHARED.read_text("utf-8"))["vectors"] == VECTORS


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a fox", [(20, "a fox")]),
        ("", [(20, "")]),
        ("[cat:dog:5]", [(5, "cat"), (20, "dog")]),
        ("[cat::5] x", [(5, "cat x"), (20, " x")]),
        ("[:dog:5]", [(5, ""), (20, "dog")]),
        ("[cat:dog: .25 ]", [(5, "cat"), (20, "dog")]),
        ("[cat:dog:1.]", [(20, "cat")]),  # a share: the whole pass
        ("[cat:dog:1]", [(1, "cat"), (20, "dog")]),  # a step
        ("[cat:dog:0]", [(20, "dog")]),
        ("[cat:dog:.04]", [(20, "dog")]),  # less than a step
        ("[cat:dog:-1]", [(20, "dog")]),  # a sign is part of the number
        ("[cat::-1] x", [(20, " x")]),
        ("[cat:-1]", [(20, "cat")]),
        ("[cat:dog:+3]", [(3, "cat"), (20, "dog")]),
        ("[cat:dog:-.5]", [(20, "dog")]),
        ("[cat:dog:+.5]", [(10, "cat"), (20, "dog")]),
        ("a | [b:c:5]", [(20, "a | [b:c:5]")]),  # a bar outside of an alternation ends all schedules
        ("[b:c:5] (a|d)", [(20, "[b:c:5] (a|d)")]),
        ("[b:c:5] [a|d:3]", [(20, "[b:c:5] [a|d:3]")]),
        ("a | b AND [c:5]", [(5, "a | b AND "), (20, "a | b AND c")]),  # of its own part only
        (r"a \| [b:c:5]", [(5, r"a \| b"), (20, r"a \| c")]),
        ("[b:c:5] <lora:x|y:1>", [(5, "b <lora:x|y:1>"), (20, "c <lora:x|y:1>")]),
        ("[b:c:5] # [d:e:3]", [(5, "b # [d:e:3]"), (20, "c # [d:e:3]")]),  # a comment holds no schedule
        ("[cat:dog:30]", [(20, "cat")]),
        ("[cat:dog:" + "9" * 5000 + "]", [(20, "cat")]),
        ("[cat:dog:0." + "5" * 5000 + "]", [(11, "cat"), (20, "dog")]),
        ("[cat:cat:5]", [(20, "cat")]),  # neighbours with one text are one entry
        ("[[a|b]:c:2]", [(1, "a"), (2, "b"), (20, "c")]),
        ("[a:[b|c]:17]", [(17, "a"), (18, "c"), (19, "b"), (20, "c")]),  # turns are counted over the whole pass
        ("[a (b:1.2):c:5]", [(5, "a (b:1.2)"), (20, "c")]),  # the weight's colon is the bracket's own
        ("[a:c:5](b:1.2)", [(5, "a(b:1.2)"), (20, "c(b:1.2)")]),
        ("([a:c:5]:1.2)", [(5, "(a:1.2)"), (20, "(c:1.2)")]),
        ("[<lora:x:0.5> a:c:5]", [(5, "<lora:x:0.5> a"), (20, "c")]),
        ("[a:b:5] AND [c:5]", [(5, "a AND "), (20, "b AND c")]),
        (r"\[a:c:5\] [a:c:5]", [(5, r"\[a:c:5\] a"), (20, r"\[a:c:5\] c")]),
        ("[ein Fuchs:狐:5] 🦊", [(5, "ein Fuchs 🦊"), (20, "狐 🦊")]),
    ],
)
def test_readings(prompt, expected):
    assert list(resolve(prompt, 20)) == expected


@pytest.mark.parametrize(
    "prompt",
    ["[a]", "[]", "a | b", "a:b:5", "[a:b:c:5]", "[a:b]", "[a:b:x]", "[a:b:1.2.3]", "[a:b:]", "[a:b:.]",
     "[a|b:5]", "[a:b|c]", "[a:b:5", "a:b:5]", "[a:b:[5]]", "[(a:b:5)]", "[a:b:٥]", "(a [b:c:5)", "[a:b:5\\]",
     "[a AND b:c:5]", r"[a\:b:c:5]", "[a:<b:5]>"],
)  # fmt: skip
def test_what_is_no_schedule_stays_text(prompt):
    assert resolve(prompt, 20) == ((20, prompt),)


def test_an_alternation_takes_its_turns():
    assert [text for _, text in resolve("[a|b|]c", 5)] == ["ac", "bc", "c", "ac", "bc"]
    assert resolve("[a|a]", 5) == ((5, "a"),)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("[a:b:25]", [(5, "a"), (10, "b")]),  # whole numbers count on from the base pass
        ("[a:b:20]", [(10, "b")]),
        ("[a:b:5]", [(10, "b")]),
        ("[a:b:1.0]", [(10, "b")]),
        ("[a:b:2.0]", [(10, "a")]),
        ("[a:b:1.3]", [(3, "a"), (10, "b")]),
        ("[a|b]", [(step, "ab"[(step - 1) % 2]) for step in range(1, 11)]),
    ],
)
def test_the_hires_pass(prompt, expected):
    assert list(resolve(prompt, 20, hires_steps=10)) == expected


def test_shares_are_exact():
    assert resolve("[a:b:.29]", 100) == ((29, "a"), (100, "b"))  # in binary floating point 28.999…


@pytest.mark.parametrize(("steps", "hires_steps"), [(0, None), (-3, None), (20, 0), (0, 5)])
def test_a_pass_has_steps(steps, hires_steps):
    with pytest.raises(ConfigError, match="steps cannot be scheduled; give 1 or more"):
        resolve("a", steps, hires_steps)


@pytest.mark.parametrize(
    "prompt",
    ["[" * 100_000, "]" * 100_000, "[" * 50_000 + "]" * 50_000, "[(" * 50_000 + "]", "<a:" * 50_000 + "[b:3]",
     "[a:" * 30_000 + ":3]" * 30_000, "[]" + "\\" * 99_999 + "]", "([" * 30_000 + ")]" * 30_000],
)  # fmt: skip
def test_long_soups_are_read(prompt):
    steps, texts = zip(*resolve(prompt, 3), strict=True)
    assert steps[-1] == 3
    assert max(map(len, texts)) <= len(prompt)


@pytest.mark.property
@given(soup, st.integers(1, 12), st.none() | st.integers(1, 12))
@example("[a:[b|c]:1.5](", 4, 4)
def test_the_entries_cover_the_pass(prompt, steps, hires_steps):
    resolved = resolve(prompt, steps, hires_steps)
    lasts = [last for last, _ in resolved]
    assert lasts == sorted(set(lasts))
    assert lasts[0] >= 1
    assert lasts[-1] == (steps if hires_steps is None else hires_steps)
    assert all(a != b for (_, a), (_, b) in pairwise(resolved))


@pytest.mark.property
@given(soup, st.integers(1, 12))
def test_texts_are_made_of_the_prompt_in_its_order(prompt, steps):
    for _, text in resolve(prompt, steps):
        left = iter(prompt)
        assert all(character in left for character in text)


@pytest.mark.property
@given(st.text().filter(lambda text: not re.search(r"\[.*[:|].*\]", text, re.DOTALL)))
def test_prompts_without_a_schedule_stay_as_they_are(prompt):
    assert resolve(prompt, 7) == ((7, prompt),)
