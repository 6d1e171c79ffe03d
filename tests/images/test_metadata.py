"""Prompts out of pictures, and reasons where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcond.images.decode import open_image
from clipcond.images.metadata.reading import LARGEST, ImagePrompt, decode_user_comment, plain_prompt, read_metadata
from clipcond.prompt.infotext import Infotext

INFOTEXT = "a cat\nNegative prompt: dög\nSteps: 20, Sampler: Euler a, Seed: 1"
UNICODE_CAT = bytes.fromhex("554e49434f444500 00610020006300610074")


def written(folder: Path, name: str, **options: object) -> Image.Image:
    Image.new("RGB", (8, 8)).save(folder / name, **options)  # type: ignore[arg-type]
    return open_image(folder / name)


def with_comment(value: bytes) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = value
    return exif.tobytes()


def test_png(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", INFOTEXT)
    found = read_metadata(written(tmp_path, "a.png", pnginfo=info))
    assert found.infotext is not None
    assert (found.infotext.prompt, found.infotext.negative_prompt) == ("a cat", "dög")
    assert (found.infotext.settings["Seed"], found.source, found.reason) == ("1", "parameters", "")


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.png"])
def test_exif_user_comment(name: str, tmp_path: Path) -> None:
    exif = with_comment(b"UNICODE\0" + INFOTEXT.encode("utf-16-be"))
    found = read_metadata(written(tmp_path, name, exif=exif))
    assert found.infotext is not None
    assert (found.infotext.prompt, found.infotext.negative_prompt) == ("a cat", "dög")
    assert found.source == "UserComment"


def test_gif_comment(tmp_path: Path) -> None:
    found = read_metadata(written(tmp_path, "a.gif", comment=INFOTEXT.encode()))
    assert found.infotext is not None
    assert (found.infotext.prompt, found.source) == ("a cat", "comment")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (UNICODE_CAT, "a cat"),
        (b"UNICODE\0" + "a cat".encode("utf-16-le"), "a cat"),
        (b"UNICODE\0" + "a cat".encode("utf-16"), "a cat"),
        (b"UNICODE\0" + "猫 a".encode("utf-16-be") + b"\0", "猫 a"),
        (b"UNICODE\0", ""),
        (b"ASCII\0\0\0a cat\0\0", "a cat"),
        (bytes(8) + "a cät".encode(), "a cät"),
        (b"JIS\0\0\0\0\0" + "猫".encode("shift_jis"), "猫"),
        (b"STRANGE!a cat", ""),
        (b"", ""),
    ],
)
def test_character_codes(value: bytes, text: str) -> None:
    assert decode_user_comment(value) == text


def test_none_says_so(tmp_path: Path) -> None:
    found = read_metadata(written(tmp_path, "a.png"))
    assert found == ImagePrompt(
        None, "", "it carries no prompt (no parameters, UserComment or comment field); pass a prompt"
    )


def test_a_photograph_with_other_exif_has_no_prompt(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = "Camera 3000"
    assert read_metadata(written(tmp_path, "a.jpg", exif=exif)).infotext is None


def test_a_jpeg_comment_is_not_a_prompt(tmp_path: Path) -> None:
    assert read_metadata(written(tmp_path, "a.jpg", comment=b"made by a camera")).infotext is None


def test_json_is_named_and_braces_are_not_json() -> None:
    image = Image.new("RGB", (4, 4))
    image.info["parameters"] = '{"sui_image_params": {"prompt": "a cat"}}'
    found = read_metadata(image)
    assert found.infotext is None
    assert "its parameters field holds JSON" in found.reason
    image.info["parameters"] = "{red|blue} fox"
    found = read_metadata(image)
    assert found.infotext is not None
    assert found.infotext.prompt == "{red|blue} fox"
    image.info["parameters"] = '{"a":' + "[" * 30_000
    assert read_metadata(image).infotext is not None  # too deep to be read as JSON: taken as it is


def test_a_text_that_is_far_too_long_for_a_prompt_is_a_reason() -> None:
    image = Image.new("RGB", (4, 4))
    image.info["parameters"] = "x," * 250_000 + "\nSteps: 20, Sampler: a, Seed: 1"
    assert read_metadata(image) == ImagePrompt(
        None, "parameters", "its text is too long to be a prompt (500,000 characters, at most 32,768)"
    )


def test_what_is_too_large_is_refused() -> None:
    image = Image.new("RGB", (4, 4))
    image.info["parameters"] = "x" * (LARGEST + 1)
    assert "too large to be a prompt (1,048,577 characters)" in read_metadata(image).reason


def test_odd_types_and_damaged_exif_are_passed_over() -> None:
    image = Image.new("RGB", (4, 4))
    image.info["parameters"] = b"bytes"
    image.info["exif"] = b"Exif\0\0nonsense that is no TIFF"
    assert read_metadata(image).reason.startswith("it carries no prompt")


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
