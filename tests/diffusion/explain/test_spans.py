"""Which phrases are explained."""

from __future__ import annotations

import pytest

from clipcond.diffusion.explain.spans import check_asked, phrase_spans
from clipcond.errors import ConfigError
from clipcond.prompt.plan import plan


@pytest.mark.parametrize(
    ("prompt", "dialect", "texts"),
    [
        ("a red fox, a hat. snow", "plain", ["a red fox", "a hat", "snow"]),
        ("a fox, (red, blue:1.2), snow", "a1111", ["a fox", "(red, blue:1.2)", "snow"]),
        ("a fox BREAK a hat", "a1111", ["a fox", "a hat"]),
        ("a fox AND a hat, snow", "a1111", ["a fox", "a hat", "snow"]),
    ],
)
def test_phrases_are_the_analyzers(prompt: str, dialect: str, texts: list[str]) -> None:
    spans = phrase_spans(plan(prompt, dialect=dialect))
    assert [each.text for each in spans] == texts
    assert [prompt[each.start : each.end] for each in spans] == texts
    if "AND" in prompt:
        assert [each.part for each in spans] == [0, 1, 1]


def test_words_leave_out_marks() -> None:
    spans = phrase_spans(plan("a red-ish fox, 3 hats!"), by="word")
    assert [each.text for each in spans] == ["a", "red", "ish", "fox", "3", "hats"]


def test_the_users_own_stand_wherever_they_are_in_any_case() -> None:
    spans = phrase_spans(plan("a Red  fox and a red fox, infrared"), asked=("red fox", "red", "red fox"))
    assert [(each.text, each.start) for each in spans] == [("Red  fox", 2), ("red fox", 17), ("Red", 2), ("red", 17)]


def test_a_phrase_that_is_not_there_is_refused_by_name() -> None:
    plans = [plan("a red fox, a hat")]
    check_asked(plans, ["hat", "A RED"])
    with pytest.raises(ConfigError, match=r"no “a rad fox” in it; there is “a red fox”$"):
        check_asked(plans, ["a rad fox"])
    with pytest.raises(ConfigError, match=r"no “zzz” in it; there is “a red fox”, “a hat”$"):
        check_asked(plans, ["zzz"])
    with pytest.raises(ConfigError, match=r"no “ ” in it"):
        check_asked(plans, [" "])
    with pytest.raises(ConfigError, match="by is 'letter', expected phrase or word"):
        phrase_spans(plans[0], by="letter")
