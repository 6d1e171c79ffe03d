"""Prompts without the marks of their syntax."""

from __future__ import annotations

import pytest

from clipcond.images.metadata.image_prompt import plain_prompt
from clipcond.prompt.infotext import Infotext


@pytest.mark.parametrize(
    ("prompt", "dialect", "text"),
    [
        ("a (red:1.3) fox \\(by hand\\) <lora:fur:0.8>", None, "a red fox (by hand)"),  # the format's own syntax
        ("a (red:1.3) fox \\(by hand\\)", "plain", "a (red:1.3) fox \\(by hand\\)"),
        ("a (fox)1.3 cat++ (red:1.3)", "compel", "a fox cat red:1.3"),
        ("a (red:1.3) fox", "of another program", "a red fox"),
    ],
)
def test_the_words_are_without_the_marks_of_their_syntax(prompt: str, dialect: str | None, text: str) -> None:
    assert plain_prompt(Infotext(prompt, "", {"Prompt dialect": dialect} if dialect else {})) == text
