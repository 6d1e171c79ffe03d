"""Prompts in files beside pictures, found by name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clipcond.images.metadata.image_prompt import ImagePrompt
from clipcond.images.sidecar import read_sidecar


def beside(folder: Path, name: str, content: str | bytes) -> ImagePrompt | None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_sidecar(folder / "a.png")


def prompts(found: ImagePrompt | None) -> tuple[str, str, str]:
    assert found is not None
    assert found.infotext is not None, found.reason
    return found.infotext.prompt, found.infotext.negative_prompt, found.source


@pytest.mark.parametrize("name", ["a.txt", "a.caption", "a.png.txt"])
def test_a_caption(tmp_path: Path, name: str) -> None:
    assert prompts(beside(tmp_path, name, "a red fox\n")) == ("a red fox", "", name)


def test_an_infotext(tmp_path: Path) -> None:
    text = "a fox\r\nNegative prompt: ugly\r\nSteps: 20, Sampler: Euler, Seed: 1"
    assert prompts(beside(tmp_path, "a.txt", text)) == ("a fox", "ugly", "a.txt")


def test_weights_alone_stay_a_prompt(tmp_path: Path) -> None:
    assert (
        prompts(beside(tmp_path, "a.txt", "(cat:1.2), (dog:1.3), (bird:0.8)"))[0] == "(cat:1.2), (dog:1.3), (bird:0.8)"
    )


@pytest.mark.parametrize("content", ["é fox".encode(), b"\xef\xbb\xbf" + "é fox".encode(), "é fox".encode("utf-16")])
def test_utf_8_and_what_windows_writes(tmp_path: Path, content: bytes) -> None:
    assert prompts(beside(tmp_path, "a.txt", content))[0] == "é fox"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"prompt": "a fox", "negative_prompt": "ugly", "seed": 5}, ("a fox", "ugly")),
        ({"caption": "a fox"}, ("a fox", "")),
        ({"positive": "a fox", "negative": "ugly"}, ("a fox", "ugly")),
        ({"sui_image_params": {"prompt": "a fox", "negativeprompt": "ugly"}}, ("a fox", "ugly")),
        ({"prompt": "a fox", "negative_prompt": "ugly", "full_prompt": ["styled a fox"]}, ("a fox", "ugly")),
        ({"3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], "latent_image": ["5", 0]}},
          "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox"}}}, ("a fox", "")),
    ],
)  # fmt: skip
def test_json_of_every_kind(tmp_path: Path, values: dict[str, object], expected: tuple[str, str]) -> None:
    assert prompts(beside(tmp_path, "a.json", json.dumps(values))) == (*expected, "a.json")


def test_the_first_that_holds_a_prompt_is_taken(tmp_path: Path) -> None:
    beside(tmp_path, "a.txt", "")
    beside(tmp_path, "a.json", '{"prompt": "of the json"}')
    assert prompts(read_sidecar(tmp_path / "a.png"))[0] == "of the json"
    assert prompts(beside(tmp_path, "a.caption", "of the caption"))[0] == "of the caption"
    assert prompts(beside(tmp_path, "a.txt", "of the text"))[0] == "of the text"


def test_pictures_are_paired_by_name_never_by_position(tmp_path: Path) -> None:
    assert beside(tmp_path, "b.txt", "of another") is None
    assert beside(tmp_path, "ab.txt", "of another") is None


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", "", "a.txt is empty"),
        ("a.txt", b"\xff\xfa\x80", "a.txt cannot be read (it is no text in UTF-8)"),
        ("a.txt", "x" * 70_000, "a.txt is too large to hold a prompt (70,000 characters)"),
        ("a.txt", b"x" * (5 << 20), "a.txt is too large to hold a prompt (more than 4,194,304 bytes)"),
        ("a.json", "no json", "a.json is no JSON object"),
        ("a.json", "[" * 100_000, "a.json is no JSON object"),
        ("a.json", "{}", "a.json holds no prompt (no prompt, positive_prompt, positive, caption, text)"),
        (
            "a.json",
            '{"prompt": ["list"]}',
            "a.json holds no prompt (no prompt, positive_prompt, positive, caption, text)",
        ),
    ],
)
def test_what_cannot_be_read_is_a_reason(tmp_path: Path, name: str, content: str | bytes, reason: str) -> None:
    found = beside(tmp_path, name, content)
    assert found is not None
    assert (found.infotext, found.source, found.reason) == (None, name, reason)


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    os.mkfifo(tmp_path / "a.caption")
    (tmp_path / "a.json").symlink_to(tmp_path / "nowhere")
    assert read_sidecar(tmp_path / "a.png") is None
    assert read_sidecar(tmp_path / "a.txt") is None
