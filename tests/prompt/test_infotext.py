"""Infotexts as A1111 writes them: read, written, and read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.prompt.infotext import Infotext, format_infotext, parse_infotext

SETTINGS = {"Steps": "20", "Sampler": "Euler a", "Seed": "1"}


def test_three_pairs_on_the_last_line_are_settings() -> None:
    found = parse_infotext("a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Seed: 1")
    assert found == Infotext("a cat", "dog", SETTINGS)
    assert list(found.settings) == ["Steps", "Sampler", "Seed"]


def test_two_pairs_stay_prompt() -> None:
    text = "a cat\nby me\nSteps: 20, Seed: 1"
    assert parse_infotext(text) == Infotext(text, "", {})


def test_commas_inside_quotes_are_kept_and_the_size_is_split() -> None:
    found = parse_infotext(
        'x\nSteps: 20, Sampler: DPM++ 2M, Seed: 5, Lora hashes: "a: 1, b: 2", Size: 512x768, Version: v1.10.1'
    )
    assert (found.prompt, found.negative_prompt) == ("x", "")
    assert found.settings == {
        "Steps": "20",
        "Sampler": "DPM++ 2M",
        "Seed": "5",
        "Lora hashes": "a: 1, b: 2",
        "Size": "512x768",
        "Version": "v1.10.1",
    }
    assert found.size == (512, 768)


@pytest.mark.parametrize(
    "text",
    [
        "(cat:1.2), (dog:1.3), (bird:0.8)",
        "cat:1.2, dog:1.3, bird:0.8",
        "style: oil, subject: a fox, light: low",
        "a fox: red: running, at dawn",
        "",
    ],
)
def test_what_only_looks_like_settings_stays_prompt(text: str) -> None:
    assert parse_infotext(text) == Infotext(text, "", {})


def test_an_empty_prompt_is_empty() -> None:
    found = parse_infotext("Negative prompt: dog\nSteps: 20, Sampler: a b, Seed: 1")
    assert (found.prompt, found.negative_prompt, found.settings["Sampler"]) == ("", "dog", "a b")


def test_lines_stay_lines_and_windows_ends_are_read() -> None:
    found = parse_infotext("a cat,\r\n  by me\r\nNegative prompt: dog\r\nbird\r\nSteps: 20, Sampler: a b, Seed: 1\r\n")
    assert (found.prompt, found.negative_prompt) == ("a cat,\n  by me", "dog\nbird")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('"a\\"b"', 'a"b'),
        ('"unfinished', '"unfinished'),
        ('"a" b', '"a" b'),
        (r'"C:\models\x"', r'"C:\models\x"'),  # \m is no JSON escape
        ("", ""),
        ('""', ""),
        ("\\u00e9", "\\u00e9"),
        ('"\\u00e9"', "é"),
    ],
)
def test_values_are_unquoted_where_they_are_quoted(written: str, read: str) -> None:
    found = parse_infotext(f"x\nSteps: 20, Name: {written}, Seed: 1, Sampler: a")
    assert found.settings == {"Steps": "20", "Name": read, "Seed": "1", "Sampler": "a"}


def test_pieces_without_a_key_are_passed_over() -> None:
    found = parse_infotext("x\nSteps: 20, loose words, Seed: 1, Sampler: a,")
    assert found.settings == {"Steps": "20", "Seed": "1", "Sampler": "a"}


def test_a_prompt_line_that_says_negative_prompt_is_read_as_that() -> None:
    assert parse_infotext(format_infotext("a\nNegative prompt: b", "", SETTINGS)) == Infotext("a", "b", SETTINGS)


def test_no_size_where_none_is_given() -> None:
    assert Infotext("", "", {"Size": "large"}).size is None
    assert Infotext("", "").size is None


def test_written_as_a1111_writes_it() -> None:
    text = format_infotext(
        "a cat", "dog", {"Steps": 20, "Sampler": "Euler a", "Seed": 1, "Extra": None, "Hashes": "a: 1"}
    )
    assert text == 'a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Seed: 1, Hashes: "a: 1"'
    assert format_infotext("a cat", "", {}) == "a cat"
    assert format_infotext("", "", SETTINGS) == "Steps: 20, Sampler: Euler a, Seed: 1"


def test_settings_that_would_not_be_found_again_are_refused() -> None:
    with pytest.raises(ConfigError, match="Steps, Seed: give three or more"):
        format_infotext("x", "", {"Steps": 20, "Seed": 1})
    with pytest.raises(ConfigError, match="one of them out of CFG scale"):
        format_infotext("x", "", {"Width": 20, "Height": 1, "Depth": 3})
    with pytest.raises(ConfigError, match="infotext setting 'a:b'"):
        format_infotext("x", "", {**SETTINGS, "a:b": 1})


_any = st.characters(exclude_categories=["Cs"])
_prompts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=60).map(str.strip)
_prompts = _prompts.filter(lambda text: "Negative prompt:" not in text)  # the format cannot say it
_keys = st.from_regex(r"[A-Za-z][A-Za-z /-]{0,8}[a-z]", fullmatch=True)


@pytest.mark.property
@given(
    _prompts,
    _prompts,
    st.dictionaries(_keys, st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=4),
)
def test_what_is_written_is_read_again(prompt: str, negative: str, more: dict[str, str]) -> None:
    settings = {**SETTINGS, **more}
    assert parse_infotext(format_infotext(prompt, negative, settings)) == Infotext(prompt, negative, settings)


@pytest.mark.property
@given(st.text(alphabet='a:,"\\ \n\rSteps1', max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    found = parse_infotext(text)
    assert all(isinstance(value, str) for value in found.settings.values())
