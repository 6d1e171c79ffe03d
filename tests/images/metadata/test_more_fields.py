"""Fields that tools other than A1111 write."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from written import encoded, png, with_exif

from clipcond.images.metadata.more_fields import XMP, more_text_fields


def test_png_text_of_any_name() -> None:
    assert png({"Title": "a", "prompt": "é", "parameters": "x"}) == {"Title": "a", "prompt": "é", "parameters": "x"}


def test_text_behind_the_pixels() -> None:
    info = PngInfo()
    info.add(b"tEXt", b"Comment\0late", after_idat=True)
    image = Image.open(BytesIO(encoded("PNG", pnginfo=info)))
    image.load()
    assert more_text_fields(image)["Comment"] == "late"


def test_exif_strings_and_xmp() -> None:
    fields = with_exif({0x010F: "Maker", 0x0110: "Model 3", 0x010E: "a fox", 0x0131: "Fooocus v2"})
    names = ("exif:Make", "exif:Model", "exif:ImageDescription", "exif:Software")
    assert [fields[name] for name in names] == ["Maker", "Model 3", "a fox", "Fooocus v2"]
    image = Image.open(BytesIO(encoded("JPEG", xmp=b"<x/>")))
    assert more_text_fields(image)[XMP] == "<x/>"


def test_hostile_values_are_left_out() -> None:
    image = Image.new("RGB", (4, 4))
    image.info = {
        3: "number",
        "bytes": b"x",
        "exif": b"Exif\0\0nonsense",
        "large": "x" * (5 << 20),
        "xmp": 3,
        "note": "kept",
    }
    image.private_chunks = [(b"comf",), (b"comf", b"prompt\0{}", True), (b"comf", b"other\0x"), (b"abcd", b"x")]  # type: ignore[attr-defined]
    assert more_text_fields(image) == {XMP: "3", "prompt": "{}", "note": "kept"}


@pytest.mark.parametrize("image_format", ["BMP", "GIF", "TIFF"])
def test_formats_without_text(image_format: str) -> None:
    image = Image.open(BytesIO(encoded(image_format)))
    image.load()
    assert set(more_text_fields(image)) <= {"version", "compression"}
