"""SwarmUI's prompts."""

from __future__ import annotations

import json

import pytest
from written import png, with_exif

from clipcond.images.metadata.image_prompt import plain_prompt
from clipcond.images.metadata.swarmui import read_swarmui

VALUES = {"sui_image_params": {"prompt": "a (red:1.2) fox", "negativeprompt": "blurry", "seed": 5, "model": "m"}}
TEXT = json.dumps(VALUES)


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        (png({"parameters": TEXT}), "parameters (SwarmUI)"),
        (with_exif({}, {0x9286: b"UNICODE\0" + TEXT.encode("utf-16-le")}, endian="<"), "UserComment (SwarmUI)"),
        (with_exif({}, {0x9286: b"UNICODE\0" + TEXT.encode("utf-16-be")}, endian="<"), "UserComment (SwarmUI)"),
        (with_exif({0x0110: TEXT}), "exif:Model (SwarmUI)"),
    ],
)
def test_every_place(fields: dict[str, str], source: str) -> None:
    found = read_swarmui(fields)
    assert found is not None
    assert found.infotext is not None
    assert (found.infotext.prompt, found.infotext.negative_prompt, found.source) == (
        "a (red:1.2) fox",
        "blurry",
        source,
    )
    assert plain_prompt(found.infotext) == "a red fox"
    assert found.infotext.settings["seed"] == "5"


def test_prompts_of_parts_are_set_apart() -> None:
    found = read_swarmui(
        {"parameters": json.dumps({"sui_image_params": {"prompt": "a fox <segment:face> green eyes"}})}
    )
    assert found is not None
    assert found.infotext is not None
    assert (found.infotext.prompt, found.infotext.settings["Part prompts"]) == ("a fox", "<segment:face> green eyes")


@pytest.mark.parametrize(
    "text", ["Camera 3000", "", "{}", '{"sui_image_params": 3}', '{"sui', "[" * 100_000, '{"a":' * 100_000]
)
def test_a_camera_or_hostile_json_is_no_prompt(text: str) -> None:
    for field in ("parameters", "UserComment", "exif:Model"):
        assert read_swarmui({field: text}) is None


def test_values_of_other_types_are_empty_and_sizes_are_capped() -> None:
    for value in (None, 3, [], {}, True, 10**30):
        found = read_swarmui(
            {"parameters": json.dumps({"sui_image_params": {"prompt": value, "negativeprompt": value}})}
        )
        assert found is not None
        assert found.infotext is not None
        assert (found.infotext.prompt, found.infotext.negative_prompt) == ("", "")
    found = read_swarmui({"parameters": json.dumps({"sui_image_params": {"prompt": "x" * 100_000}})})
    assert found is not None
    assert found.reason == "its parameters field is too large to be a prompt (100,000 characters)"
