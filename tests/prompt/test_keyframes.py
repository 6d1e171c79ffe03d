"""Prompts by frame, in every form that people have them in."""

from __future__ import annotations

from typing import Any

import pytest

from clipcond.errors import ConfigError
from clipcond.prompt.keyframes import keyframes

TWO = {0: "a fox", 16: "a wolf"}


@pytest.mark.parametrize(
    "prompts",
    [
        TWO,
        {16: "a wolf", 0: "a fox"},
        {"0": "a fox", "16": "a wolf"},
        '{"0": "a fox", "16": "a wolf"}',
        '"0": "a fox",\n"16": "a wolf",\n',
        "0: a fox, 16: a wolf",
        "0: a fox\n16: a wolf",
        "0:a fox,\n\n16 : a wolf,",
    ],
)
def test_one_film_in_every_form(prompts: Any) -> None:
    found = keyframes(prompts)
    assert found == TWO
    assert list(found) == [0, 16]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a fox", {0: "a fox"}),
        ("", {0: ""}),
        ("a film, 16:9, (red:1.3)", {0: "a film, 16:9, (red:1.3)"}),
        ("{a|b} fox", {0: "{a|b} fox"}),
        ("0: (fox:1.3), snow, 16: a film of 16:9", {0: "(fox:1.3), snow", 16: "a film of 16:9"}),
        (
            "photo,\n0: 3 foxes\n8: a wolf\nin the snow",
            {0: "photo, 3 foxes, in the snow", 8: "photo, a wolf, in the snow"},
        ),
    ],
)
def test_text_that_is_no_frame_stays_text(text: str, expected: dict[int, str]) -> None:
    assert keyframes(text) == expected


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({}, "the first prompt is at frame none, expected one at 0"),
        ({4: "a fox"}, "the first prompt is at frame 4, expected one at 0"),
        ({0: "a", "0": "b"}, "frame 0 has two prompts"),
        ('{"0": "a", "0": "b"}', "frame 0 has two prompts"),
        ({"0": "a", "max_f-1": "b"}, "frame 'max_f-1' is no frame, expected a whole number from 0"),
        ({0: "a", -1: "b"}, "frame -1 is no frame"),
        ({True: "a"}, "frame True is no frame"),
        ({0: 3}, "the prompt at frame 0 is a int, expected a string"),
        ({0: "a fox --neg blurry"}, "give that side as negative_prompt, by frame too"),
        ('{"0": "a fox", "16": }', "no JSON object like"),
        ("0: a fox\nin the snow\n8: a wolf", "line 2 of the prompts has no frame"),
        (["a fox"], "prompts are a list, expected a dict of frames, or a string"),
    ],
)
def test_what_is_no_film_is_said_in_one_line(prompts: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        keyframes(prompts)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
