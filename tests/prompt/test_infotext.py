"""Infotexts as A1111 writes them: read, written, and read again."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.prompt.infotext import LONGEST_PROMPT, Infotext, format_infotext, parse_infotext, recognise_infotext

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


CIVITAI = '[{"type":"checkpoint","modelVersionId":1}, {"type":"lora","weight":0.8}]'


@pytest.mark.parametrize(
    ("text", "prompt", "negative", "settings"),
    [
        pytest.param(
            'a cat\nNegative prompt: dog\nSteps: 20, Note: "one, two\nthree: four", Sampler: Euler a, Seed: 1',
            "a cat", "dog", SETTINGS | {"Note": "one, two\nthree: four"},
            id="a quoted line break",
        ),
        pytest.param(
            "a cat\nSteps: 20, Sampler: Euler a, Seed: 1\nTemplate: a {cat|dog}, x: y\nNegative Template: z\nlow\n",
            "a cat", "", SETTINGS | {"Template": "a {cat|dog}, x: y", "Negative Template": "z\nlow"},
            id="lines behind the settings",
        ),
        pytest.param(
            "a cat\nSteps: 20, Sampler: Euler a, Seed: 1\n\nUsed embeddings: owl [119b], bad",
            "a cat", "", SETTINGS | {"Used embeddings": "owl [119b], bad"},
            id="embeddings behind the settings",
        ),
        pytest.param(
            "a cat\nnegative prompt: dog\nSteps: 20, Sampler: Euler a, Seed: 1", "a cat", "dog", SETTINGS,
            id="negative prompt in small letters",
        ),
        pytest.param(
            "a cat\nNEGATIVE PROMPT : dog\nSteps: 20, Sampler: Euler a, Seed: 1", "a cat", "dog", SETTINGS,
            id="negative prompt in capitals",
        ),
        pytest.param(
            "\ufeffa cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Seed: 1", "a cat", "dog", SETTINGS,
            id="a byte order mark",
        ),
        pytest.param(
            "a cat\rNegative prompt: dog\rSteps: 20, Sampler: Euler a, Seed: 1\r", "a cat", "dog", SETTINGS,
            id="carriage returns",
        ),
        pytest.param(
            "a cat, sitting Negative prompt: dog, bird Steps: 20, Sampler: Euler a, Seed: 1",
            "a cat, sitting", "dog, bird", SETTINGS,
            id="one line",
        ),
        pytest.param(
            "a cat, Steps: 20, Sampler: Euler a, Seed: 1", "a cat,", "", SETTINGS, id="one line without a negative prompt"
        ),
        pytest.param(
            "a cat. Negative prompt: dog\nSteps: 20, Sampler: Euler a, Seed: 1", "a cat.", "dog", SETTINGS,
            id="both prompts on one line",
        ),
        pytest.param(
            "a cat\nNegative prompt: dog Steps: 20, Sampler: Euler a, Seed: 1", "a cat", "dog", SETTINGS,
            id="settings on the line of the negative prompt",
        ),
        pytest.param(
            f"a cat\nSteps: 20, Sampler: Euler a, Civitai resources: {CIVITAI}, Seed: 1",
            "a cat", "", SETTINGS | {"Civitai resources": CIVITAI},
            id="JSON of civitai",
        ),
        pytest.param(
            'a cat\nSteps: 20, Sampler: Euler a, Hashes: {"model": "12", "vae": "34"}, Seed: 1, Civitai metadata: {}',
            "a cat", "", SETTINGS | {"Hashes": '{"model": "12", "vae": "34"}', "Civitai metadata": "{}"},
            id="JSON of hashes",
        ),
        pytest.param(
            'a cat\nLora: "b, Steps: 3, c", Steps: 20, Sampler: Euler a, Seed: 1',
            "a cat", "", SETTINGS | {"Lora": "b, Steps: 3, c"},
            id="a quoted Steps before the steps",
        ),
        pytest.param(
            "a cat\nSteps: 20, Sampler: Euler a, Seed: 1\nNegative prompt: dog", "a cat", "dog", SETTINGS,
            id="negative prompt behind the settings",
        ),
    ],
)  # fmt: skip
def test_settings_and_negative_prompt_are_never_the_prompt(
    text: str, prompt: str, negative: str, settings: dict[str, str]
) -> None:
    assert parse_infotext(text) == Infotext(prompt, negative, settings)


def test_lines_behind_the_settings_without_a_name_are_the_rest() -> None:
    text = "a cat\nSteps: 20, Sampler: Euler a, Seed: 1\nsome words\nmore words"
    assert parse_infotext(text) == Infotext("a cat", "", SETTINGS, "some words\nmore words")


def test_of_two_infotexts_in_one_the_first_prompt_counts() -> None:
    one = "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Seed: 1"
    found = parse_infotext(f"{one}\n\na bird\n{SECOND}")
    assert (found.prompt, found.negative_prompt, found.rest) == ("a cat", "dog", "a bird")
    assert found.settings["Seed"] == "2"


SECOND = "Steps: 30, Sampler: DDIM, Seed: 2"


@pytest.mark.parametrize(
    "text",
    [
        "x\n" + "aa:," * 65_000,
        "x\n" + "," * 256_000,
        "x\nSteps: 1," + " " * 256_000 + "Seed: 2, Sampler: a",
        "a: b\n" * 65_000,
        'Steps: 1, aa: "\n' * 16_000,
        'Steps: 1, aa: "\\"\n' * 16_000,
        "Steps: 1, aa: [\n" * 16_000,
        "Steps: 1, " + "aa: [1, " * 32_000,
        "Steps: 1, " + 'aa: [["", ' * 26_000,
        "Steps: 1, aa: " + "[" * 256_000,
        'Steps: 1, Seed: "' + '\\"' * 128_000,
        "x Steps: 1, bb\n" * 16_000,
        "negative prompt: x\n" * 14_000,
        "word, " * 21_666 + "\nSteps: 20, Sampler: a, Seed: 1",
    ],
    ids=lambda text: text[:20],
)
def test_a_quarter_of_a_million_characters_take_linear_time(text: str) -> None:
    started = time.process_time()
    parse_infotext(text)
    assert time.process_time() - started < 5  # 1 to 400 ms; minutes where any of it is quadratic


def test_a_text_that_is_too_long_for_a_prompt_says_so() -> None:
    assert parse_infotext("x" * LONGEST_PROMPT).problem == ""
    found = parse_infotext("x" * 256_000 + "\nSteps: 20, Sampler: a, Seed: 1")
    assert found.problem == "its text is too long to be a prompt (256,000 characters, at most 32,768)"


def test_a_pasted_infotext_is_recognised_and_other_text_is_not() -> None:
    pasted = "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Seed: 1"
    assert recognise_infotext(pasted) == Infotext("a cat", "dog", SETTINGS)
    assert recognise_infotext("a cat\nNegative prompt: dog") == Infotext("a cat", "dog", {})
    assert recognise_infotext("a cat\nSteps: 20, Sampler: Euler a, Seed: 1") == Infotext("a cat", "", SETTINGS)
    for prompt in ("", "a cat", "a cat\nby me", "(cat:1.2), (dog:1.3), (bird:0.8)", "style: oil, subject: a fox, x: y"):
        assert recognise_infotext(prompt) is None


_any = st.characters(exclude_categories=["Cs"])
_prompts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=60).map(str.strip)
_prompts = _prompts.filter(lambda text: "negative prompt" not in text.lower())  # the format cannot say it
_prompts = _prompts.filter(lambda text: not text.startswith("\ufeff"))  # a mark of the encoding
_keys = st.from_regex(r"[A-Za-z][A-Za-z /-]{0,8}[a-z]", fullmatch=True)


@pytest.mark.property
@given(
    _prompts,
    _prompts,
    st.dictionaries(_keys, st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=4),
)
@example("", "blurry \ngrey", {})
def test_what_is_written_is_read_again(prompt: str, negative: str, more: dict[str, str]) -> None:
    settings = {**SETTINGS, **more}
    assert parse_infotext(format_infotext(prompt, negative, settings)) == Infotext(prompt, negative, settings)


@pytest.mark.property
@given(st.text(alphabet='a:,"\\ \n\rSteps1[{}]', max_size=60) | st.text(st.characters(), max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    found = parse_infotext(text)
    assert all(isinstance(value, str) for value in found.settings.values())


def test_the_typed_negative_prompt_of_fooocus_is_a_setting() -> None:
    found = parse_infotext(
        "a fox\nNegative prompt: ugly\nSteps: 30, Seed: 5, Raw prompt: fox, Raw negative prompt: bad"
    )
    assert (found.prompt, found.negative_prompt) == ("a fox", "ugly")
    assert (found.settings["Raw prompt"], found.settings["Raw negative prompt"]) == ("fox", "bad")
