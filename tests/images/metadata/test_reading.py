"""Prompts out of pictures, and reasons where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcond.images.decode import open_image
from clipcond.images.metadata.a1111 import LARGEST
from clipcond.images.metadata.reading import ImagePrompt, read_metadata

INFOTEXT = "a cat\nNegative prompt: dög\nSteps: 20, Sampler: Euler a, Seed: 1"


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
    image.info["parameters"] = "x," * 25_000 + "\nSteps: 20, Sampler: a, Seed: 1"
    assert read_metadata(image) == ImagePrompt(
        None, "parameters", "its text is too long to be a prompt (50,000 characters, at most 32,768)"
    )


def test_what_is_too_large_is_refused() -> None:
    image = Image.new("RGB", (4, 4))
    image.info["parameters"] = "x" * (LARGEST + 1)
    assert "too large to be a prompt (65,537 characters)" in read_metadata(image).reason


def test_odd_types_and_damaged_exif_are_passed_over() -> None:
    image = Image.new("RGB", (4, 4))
    image.info["parameters"] = b"bytes"
    image.info["exif"] = b"Exif\0\0nonsense that is no TIFF"
    assert read_metadata(image).reason.startswith("it carries no prompt")


def test_user_comments_in_the_first_directory_are_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x9286] = INFOTEXT.encode("utf-8")
    for name in ("a.jpg", "a.webp"):
        found = read_metadata(written(tmp_path, name, exif=exif))
        assert found.infotext is not None
        assert (found.infotext.prompt, found.source) == ("a cat", "UserComment")


def test_a_jpegs_own_comment_is_read_where_it_is_an_infotext(tmp_path: Path) -> None:
    found = read_metadata(written(tmp_path, "a.jpg", comment=INFOTEXT.encode()))
    assert found.infotext is not None
    assert (found.infotext.prompt, found.source) == ("a cat", "comment")


def test_the_byte_order_of_the_exif_block_decides_where_text_has_no_latin_letter(tmp_path: Path) -> None:
    for endian, codec in (("<", "utf-16-le"), (">", "utf-16-be")):
        exif = Image.Exif()
        exif.endian = endian
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "一只狐狸".encode(codec)
        found = read_metadata(written(tmp_path, "a.jpg", exif=exif.tobytes()))
        assert found.infotext is not None
        assert found.infotext.prompt == "一只狐狸"
