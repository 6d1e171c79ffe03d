"""Easy Diffusion's prompts, beside ComfyUI's graphs of the same name."""

from __future__ import annotations

import json

import pytest
from written import png, with_exif

from clipcond.images.metadata.easy_diffusion import read_easy_diffusion


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        (png({"prompt": "a fox", "negative_prompt": "ugly", "seed": "5"}), "prompt (Easy Diffusion)"),
        (png({"Prompt": "a fox", "Negative Prompt": "ugly", "Seed": "5"}), "Prompt (Easy Diffusion)"),
        (with_exif({}, {0x9286: b"UNICODE\0" + json.dumps({"prompt": "a fox", "negative_prompt": "ugly", "seed": 5})
                        .encode("utf-16-be")}), "UserComment (Easy Diffusion)"),
        (with_exif({}, {0x9286: b"ASCII\0\0\0" + json.dumps({"Prompt": "a fox", "Negative Prompt": "ugly", "Seed": 5})
                        .encode()}, "WEBP"), "UserComment (Easy Diffusion)"),
    ],
)  # fmt: skip
def test_every_place(fields: dict[str, str], source: str) -> None:
    found = read_easy_diffusion(fields)
    assert found is not None
    assert found.infotext is not None
    assert (found.infotext.prompt, found.infotext.negative_prompt, found.source) == ("a fox", "ugly", source)
    assert "5" in (found.infotext.settings.get("seed"), found.infotext.settings.get("Seed"))


def test_a_graph_of_comfyui_is_no_prompt_not_even_a_damaged_one() -> None:
    for text in ('{"3": {"class_type": "KSampler"}}', '{"3": {"class_ty', ' {"' + "x" * 1000):
        assert read_easy_diffusion({"prompt": text}) is None


def test_braces_are_a_prompt() -> None:
    found = read_easy_diffusion({"prompt": "{red|blue} fox"})
    assert found is not None
    assert found.infotext is not None
    assert found.infotext.prompt == "{red|blue} fox"


@pytest.mark.parametrize("text", ["", "a fox", "{}", '{"prompt": 3}', "[" * 100_000, '{"a":' * 100_000])
def test_other_user_comments_are_left_to_others(text: str) -> None:
    assert read_easy_diffusion({"UserComment": text}) is None
