"""Fooocus' prompts, as the user typed them."""

from __future__ import annotations

import json

import pytest
from written import encoded, fields_of, png, with_exif

from clipcond.images.metadata.fooocus import read_fooocus

VALUES = {
    "prompt": "a fox, é", "negative_prompt": "ugly", "full_prompt": ["cinematic a fox, é", "more"], "seed": "5",
    "base_model": "juggernaut",
}  # fmt: skip
INFOTEXT = (
    "cinematic still a fox, in snow\nNegative prompt: anime, ugly\nSteps: 30, Sampler: DPM++ 2M, Seed: 5, "
    'Raw prompt: "a fox, in snow", Raw negative prompt: ugly, Version: Fooocus v2.5.5'
)


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        (png({"parameters": json.dumps(VALUES), "fooocus_scheme": "fooocus"}), "parameters (Fooocus)"),
        (with_exif({0x9286: json.dumps(VALUES), 0x0131: "Fooocus v2.5.5", 0x927C: "fooocus"}), "UserComment (Fooocus)"),
        (
            with_exif({0x9286: json.dumps(VALUES), 0x0131: "Fooocus v2.5.5"}, image_format="WEBP"),
            "UserComment (Fooocus)",
        ),
        (png({"Comment": json.dumps(VALUES)}), "Comment (Fooocus)"),
        (fields_of(encoded("JPEG", comment=json.dumps(VALUES).encode())), "comment (Fooocus)"),
    ],
)
def test_json_in_every_place(fields: dict[str, str], source: str) -> None:
    found = read_fooocus(fields)
    assert found is not None
    assert found.infotext is not None
    assert (found.infotext.prompt, found.infotext.negative_prompt, found.source) == ("a fox, é", "ugly", source)
    assert (found.infotext.settings["seed"], found.infotext.settings["Prompt dialect"]) == ("5", "a1111")


@pytest.mark.parametrize(
    "fields",
    [png({"parameters": INFOTEXT, "fooocus_scheme": "a1111"}), with_exif({0x9286: INFOTEXT, 0x927C: "a1111"})],
)
def test_of_an_infotext_the_prompt_before_styles(fields: dict[str, str]) -> None:
    found = read_fooocus(fields)
    assert found is not None
    assert found.infotext is not None
    assert (found.infotext.prompt, found.infotext.negative_prompt) == ("a fox, in snow", "ugly")


@pytest.mark.parametrize(
    "fields",
    [
        {"parameters": "a fox\nSteps: 20, Sampler: Euler, Seed: 1"},  # an infotext of A1111
        {"parameters": '{"sui_image_params": {}}'},
        {"Comment": '{"prompt": "x", "uc": "y"}'},  # NovelAI's
        {"parameters": "a fox\nSteps: 20, Sampler: Euler, Seed: 1", "Comment": json.dumps(VALUES)},
        {"parameters": "[" * 100_000, "comment": "made by a camera"},
        {"parameters": json.dumps({"full_prompt": 3, "prompt": ["list"]})},
        {"UserComment": "a text with Raw prompt in it"},
    ],
)
def test_what_others_write_is_left_to_them(fields: dict[str, str]) -> None:
    assert read_fooocus(fields) is None
