"""Scores and ratings written into pictures: read back by Pillow, with the pixels and all other metadata untouched."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from clipcond.errors import ConfigError, ImageError
from clipcond.images.containers import Chunk, Container, read_jpeg, read_png, read_webp, write_png
from clipcond.images.write_back import WrittenScore, read_score, write_back
from clipcond.images.xmp import ratings

SCORE = WrittenScore(model="ViT-B-32/openai", scale="clipscore", score=0.7315, prompt="a red föx")
PARAMETERS = "a red föx\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Seed: 1"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
OTHER_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="2" xmp:Label="mine"/>'
    "</rdf:RDF></x:xmpmeta>"
)


def picture(mode: str = "RGB") -> Image.Image:
    image = Image.effect_noise((40, 24), 80).convert("RGB")
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize((40, 24)))
    return image


def exif() -> bytes:
    block = Image.Exif()
    block[0x0110] = "Camera"
    block.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + PARAMETERS.encode("utf-16-be")
    return block.tobytes()


def png(path: Path, **options: object) -> Path:
    text = PngInfo()
    text.add_text("parameters", PARAMETERS)
    text.add_itxt("note", "später", zip=True)
    picture("RGBA").save(path, pnginfo=text, exif=exif(), icc_profile=PROFILE, dpi=(300, 300), **options)  # type: ignore[arg-type]
    return path


def jpeg(path: Path, **options: object) -> Path:
    picture().save(path, exif=exif(), icc_profile=PROFILE, comment=b"made by me", progressive=True, **options)  # type: ignore[arg-type]
    return path


def webp(path: Path, **options: object) -> Path:
    picture("RGBA").save(path, exif=exif(), icc_profile=PROFILE, lossless=True, **options)  # type: ignore[arg-type]
    return path


def seen(path: Path) -> tuple[bytes, dict[str, object]]:
    """Pixels of all frames and Pillow's info without what is written back."""
    with Image.open(path) as image:
        pixels = b""
        for frame in range(getattr(image, "n_frames", 1)):
            image.seek(frame)
            pixels += image.convert("RGBA").tobytes()
        image.load()
        info = {
            name: value for name, value in image.info.items() if name not in ("clipcond", "xmp", "XML:com.adobe.xmp")
        }
    return pixels, info


def rating_in(path: Path) -> tuple[str, ...]:
    with Image.open(path) as image:
        image.load()
        found = image.info.get("xmp") or image.info["XML:com.adobe.xmp"]
    return ratings(found if isinstance(found, bytes) else found.encode())


@pytest.mark.parametrize("make", [png, jpeg, webp])
@pytest.mark.parametrize("xmp", [False, True])
def test_a_rating_is_read_back_and_all_else_is_as_it_was(tmp_path: Path, make: Callable[..., Path], xmp: bool) -> None:
    path = tmp_path / "a.png" if make is png else tmp_path / f"a.{make.__name__}"
    if make is png:
        make(path)
        if xmp:
            content = read_png(path.read_bytes())
            new = Chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(OTHER_XMP.encode()))
            path.write_bytes(write_png(content.with_chunks([*content.chunks[:-1], new, content.chunks[-1]])))
    else:
        make(path, **({"xmp": OTHER_XMP.encode()} if xmp else {}))
    before = seen(path)
    assert write_back(path, rating=4) == ("xmp:Rating",)
    assert seen(path) == before
    assert rating_in(path) == ("4",)
    first = path.read_bytes()
    write_back(path, rating=4)
    assert path.read_bytes() == first
    write_back(path, rating=0)
    assert rating_in(path) == ("0",)
    assert (b'xmp:Label="mine"' in path.read_bytes()) == xmp
    assert len(path.read_bytes()) == len(first)
    assert seen(path) == before


def test_a_score_is_read_back_and_replaced(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png")
    before, chunks = seen(path), read_png(path.read_bytes()).chunks
    assert write_back(path, score=SCORE, rating=5) == ("clipcond", "xmp:Rating")
    write_back(path, score=dataclasses.replace(SCORE, score=0.5))
    with Image.open(path) as image:
        text = image.info["clipcond"]  # before the pixels: known without decoding
    assert json.loads(text) == {"model": "ViT-B-32/openai", "scale": "clipscore", "score": 0.5, "prompt": "a red föx"}
    assert read_score(text) == dataclasses.replace(SCORE, score=0.5)
    assert seen(path) == before
    after = read_png(path.read_bytes()).chunks
    assert [chunk for chunk in after if chunk in chunks] == list(chunks)
    assert len(after) == len(chunks) + 2
    assert rating_in(path) == ("5",)


def test_a_score_alone_finds_no_place_in_a_jpeg_and_says_so(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpeg")
    before = path.read_bytes()
    assert write_back(path, score=SCORE) == ()
    assert path.read_bytes() == before
    assert write_back(path, score=SCORE, rating=3) == ("xmp:Rating",)


@pytest.mark.parametrize(
    "options", [{"quality": 80}, {"lossless": True}, {"lossless": True, "mode": "RGBA"}, {"frames": 3}]
)
def test_webp_of_every_layout(tmp_path: Path, options: dict[str, object]) -> None:
    path = tmp_path / "a.webp"
    image = picture(str(options.pop("mode", "RGB")))
    frames = int(str(options.pop("frames", 1)))
    more = {"save_all": True, "append_images": [picture() for _ in range(frames - 1)]} if frames > 1 else {}
    image.save(path, **options, **more)  # type: ignore[arg-type]
    before = seen(path)
    old = read_webp(path.read_bytes()).chunks
    write_back(path, rating=4)
    assert seen(path) == before
    assert rating_in(path) == ("4",)
    new = read_webp(path.read_bytes()).chunks
    assert [chunk for chunk in new if chunk.kind not in (b"VP8X", b"XMP ")] == [
        chunk for chunk in old if chunk.kind != b"VP8X"
    ]


def test_the_pixels_of_each_format_are_byte_for_byte_the_same(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpeg")
    before = read_jpeg(path.read_bytes())
    write_back(path, rating=1)
    after = read_jpeg(path.read_bytes())
    assert after.rest == before.rest
    assert [each for each in after.chunks if each in before.chunks] == list(before.chunks)
    assert [each.kind for each in after.chunks][:3] == [b"\xe0", b"\xe1", b"\xe1"]  # JFIF, EXIF, then XMP


def test_animated_png_and_what_stands_behind_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture().save(path, save_all=True, append_images=[picture(), picture()])
    path.write_bytes(path.read_bytes() + b"a tail")
    before = seen(path)
    write_back(path, score=SCORE, rating=2)
    assert seen(path) == before
    assert path.read_bytes().endswith(b"a tail")


def test_times_mode_and_links_are_kept(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png")
    path.chmod(0o640)
    os.utime(path, ns=(10**18, 10**18))
    (tmp_path / "link.png").symlink_to(path)
    write_back(tmp_path / "link.png", rating=1, keep_times=True)
    assert path.stat().st_mtime_ns == 10**18
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (tmp_path / "link.png").is_symlink()
    assert rating_in(path) == ("1",)
    write_back(path, rating=2)
    assert path.stat().st_mtime_ns != 10**18
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.png", "link.png"]


def damages(content: bytes) -> dict[str, bytes]:
    flipped = bytearray(content)
    flipped[45] ^= 0xFF
    return {
        "cut": content[: len(content) // 2],
        "one byte short": content[:-13],
        "head": content[:11],
        "flipped": bytes(flipped),
    }


@pytest.mark.parametrize("how", ["cut", "one byte short", "head", "flipped"])
def test_damaged_pngs_are_refused_and_stay_untouched(tmp_path: Path, how: str) -> None:
    path = png(tmp_path / "a.png")
    path.write_bytes(damages(path.read_bytes())[how])
    before = path.read_bytes()
    with pytest.raises(ImageError, match=r"a\.png: nothing is written into it, (it is cut off|the checksum)"):
        write_back(path, score=SCORE, rating=3)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("make", [jpeg, webp])
def test_cut_jpegs_and_webps_are_refused_and_stay_untouched(tmp_path: Path, make: Callable[..., Path]) -> None:
    path = make(tmp_path / f"a.{make.__name__}")
    whole = path.read_bytes()
    for length in (3, 12, 30, 200, len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError, match="nothing is written into it, it"):
            write_back(path, rating=3)
        assert path.read_bytes() == whole[:length]


def test_a_damaged_packet_is_refused(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpeg", xmp=b"<x:xmpmeta")
    before = path.read_bytes()
    with pytest.raises(ImageError, match=r"a\.jpeg: nothing is written into it, its XMP packet is no XML in UTF-8"):
        write_back(path, rating=3)
    assert path.read_bytes() == before
    path = png(tmp_path / "a.png")
    content = read_png(path.read_bytes())
    for body in (b"", b"\0\1\0\0\0bomb", b"\0\1\0\0\0" + zlib.compress(bytes(1 << 24)), b"\0\0\0\0"):
        new = Chunk(b"iTXt", b"XML:com.adobe.xmp" + body)
        path.write_bytes(write_png(content.with_chunks([*content.chunks[:-1], new, content.chunks[-1]])))
        with pytest.raises(ImageError, match="its XMP packet"):
            write_back(path, rating=3)


def test_a_packet_that_has_no_room_is_refused(tmp_path: Path) -> None:
    large = OTHER_XMP.replace("mine", "m" * (65_535 - 2 - 29 - len(OTHER_XMP) + 4)).replace(' xmp:Rating="2"', "")
    path = jpeg(tmp_path / "a.jpeg", xmp=large.encode())
    with pytest.raises(ImageError, match="bytes do not fit into a segment of a JPEG"):
        write_back(path, rating=3)


@pytest.mark.parametrize("name", ["a.gif", "a.bmp", "a.tiff"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    picture().save(tmp_path / name)
    with pytest.raises(ImageError, match="it is no PNG, JPEG or WebP"):
        write_back(tmp_path / name, rating=3)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in (
        ("empty.png", "it is empty"),
        ("pipe.png", "no regular file"),
        ("none.png", "cannot be read"),
    ):
        with pytest.raises(ImageError, match=message):
            write_back(tmp_path / name, rating=3)


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="nothing to write back"):
        write_back(path)
    for rating in (-1, 6, 2.5, True):
        with pytest.raises(ConfigError, match="makes no sense; expected 0 to 5 stars"):
            write_back(path, rating=rating)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a score of nan cannot be written back"):
        write_back(path, score=dataclasses.replace(SCORE, score=float("nan")))


def test_a_file_that_changes_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = png(tmp_path / "a.png")

    def slow(container: Container) -> bytes:
        path.write_bytes(b"somebody else's")
        return write_png(container)

    monkeypatch.setattr("clipcond.images.write_back.write_png", slow)
    with pytest.raises(ImageError, match="has changed meanwhile"):
        write_back(path, rating=3)
    assert path.read_bytes() == b"somebody else's"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": 1, "scale": "", "prompt": "", "score": 1}', "[" * 100_000,
                                  '{"model": "", "scale": "", "prompt": "", "score": NaN}'])  # fmt: skip
def test_hostile_chunks_hold_no_score(text: str) -> None:
    assert read_score(text) is None


def test_a_hostile_length_is_no_reason_to_take_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    buffer = BytesIO()
    picture().save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[:8] + struct.pack(">I4s", 0xFFFFFFFF, b"IHDR") + buffer.getvalue()[16:])
    with pytest.raises(ImageError, match="it is cut off"):
        write_back(path, rating=1)
