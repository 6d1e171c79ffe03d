"""Pictures as tools write them, and the fields that are read from them."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcond.images.metadata.fields import text_fields
from clipcond.images.metadata.more_fields import more_text_fields


def fields_of(content: bytes) -> dict[str, str]:
    """All text fields of an encoded picture."""
    image = Image.open(BytesIO(content))
    image.load()
    return {**more_text_fields(image), **text_fields(image)}


def encoded(image_format: str, **options: object) -> bytes:
    """A small picture in a format, with whatever Pillow is asked to write beside the pixels."""
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, image_format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def png(texts: Mapping[str, str]) -> dict[str, str]:
    """Fields of a PNG with text chunks."""
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    return fields_of(encoded("PNG", pnginfo=info))


def with_exif(
    first: Mapping[int, str | bytes],
    sub: Mapping[int, bytes] | None = None,
    image_format: str = "JPEG",
    endian: str = ">",
) -> dict[str, str]:
    """Fields of a picture with values in the first EXIF directory, and in the Exif one."""
    block = Image.Exif()
    block.endian = endian
    for tag, value in first.items():
        block[tag] = value
    for tag, value in (sub or {}).items():
        block.get_ifd(0x8769)[tag] = value
    return fields_of(encoded(image_format, exif=block.tobytes()))
