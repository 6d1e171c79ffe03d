"""The options of one prompt: checked when they are made, its dialect decided, its syntax read without a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipcond.errors import OptionsError
from clipcond.workflows.events import Event, Note
from clipcond.workflows.prompt_options import PromptOptions, adapters_of_texts, composes, with_dialect


def test_names_that_do_not_exist_are_refused() -> None:
    with pytest.raises(OptionsError, match="--chunking soft does not exist; there are hard"):
        PromptOptions(chunking="soft")
    with pytest.raises(OptionsError, match="--weighting: unknown weighting 'comfi'"):
        PromptOptions(weighting="comfi")


def test_auto_is_decided_once_with_a_note() -> None:
    events: list[Event] = []
    decided = with_dialect(PromptOptions(prompt="a (red:1.3) fox", dialect="auto"), events.append)
    assert decided.dialect == "a1111"
    assert with_dialect(decided, events.append) is decided
    assert events == [Note("dialect a1111: (red:1.3) is A1111 syntax")]


def test_the_first_given_option_is_named_as_on_the_command_line() -> None:
    assert PromptOptions(prompt="x").first_given() is None
    given = PromptOptions(prompt="x", clip_skip=1, lora_dir=Path("d"))
    assert given.first_given() == "--clip-skip"
    assert given.first_given(apart_from=["clip_skip"]) == "--lora-dir"


def test_arguments_are_those_of_a_conditioner() -> None:
    arguments = PromptOptions(prompt="x", negative_prompt="y", embeddings=Path("d")).arguments
    assert arguments["negative_prompt"] == "y"
    assert not {"prompt", "embeddings", "lora_dir"} & arguments.keys()


@pytest.mark.parametrize(
    ("text", "dialect", "expected"),
    [
        ("a AND b", "a1111", True),
        ("a AND b", "plain", False),
        ("a and b", "a1111", False),
        ('("a", "b").and()', "compel", False),  # joined when it is encoded
    ],
)
def test_an_and_is_seen_in_its_dialect_only(text: str, dialect: str, expected: bool) -> None:
    assert composes(text, dialect) is expected


def test_adapters_of_all_texts_those_in_schedules_too() -> None:
    options = PromptOptions(
        prompt="a <lora:ink:0.8> [fox<lora:fur:1>:bird:2]", negative_prompt="<lora:ink:0.8>", dialect="a1111"
    )
    assert [adapter.name for adapter in adapters_of_texts(options)] == ["ink", "fur", "ink"]
