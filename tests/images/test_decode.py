"""Opening pictures: decoded to the end, or one line that says why not."""

from __future__ import annotations

import logging
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from time import sleep

import numpy as np
import pytest
from PIL import Image
from ramps import ramp

from clipcond.errors import ImageError
from clipcond.images import decode
from clipcond.images.colour import to_rgb
from clipcond.images.decode import open_image


def _truncated(folder: Path) -> Path:
    path = folder / "half.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    return path


def test_what_cannot_be_opened_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        open_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="is a folder, not a picture"):
        open_image(tmp_path)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ImageError, match=r"text\.png: is not a picture in a format"):
        open_image(tmp_path / "text.png")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"empty\.png: is empty"):
        open_image(tmp_path / "empty.png")
    with pytest.raises(ImageError, match=r"half\.png: cannot be decoded \(.*truncated"):
        open_image(_truncated(tmp_path))
    ramp(64, 64).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"big\.png: is too large \(Image size \(4096 pixels\)"):
        open_image(tmp_path / "big.png")


def test_pictures_can_be_used_after_opening(tmp_path: Path) -> None:
    ramp(9, 9).save(tmp_path / "a.png")
    assert open_image(str(tmp_path / "a.png")).tobytes() == ramp(9, 9).tobytes()


def test_bytes_and_streams_are_pictures_too(tmp_path: Path) -> None:
    ramp(9, 9).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert open_image(content).tobytes() == ramp(9, 9).tobytes()
    with (tmp_path / "a.png").open("rb") as file:
        assert open_image(file, name="shard.tar:a.png").tobytes() == ramp(9, 9).tobytes()
    with pytest.raises(ImageError, match=r"^shard\.tar:a\.png: is not a picture in a format"):
        open_image(b"nonsense", name="shard.tar:a.png")
    with pytest.raises(ImageError, match=r"^picture: is empty"):
        open_image(b"")


def test_a_jpeg_is_shrunk_while_decoding_and_never_below_what_was_asked(tmp_path: Path) -> None:
    ramp(640, 400).save(tmp_path / "a.jpg")
    ramp(640, 400).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.jpg", shrink_to=90).size == (160, 100)
    assert open_image(tmp_path / "a.jpg", shrink_to=101).size == (320, 200)
    assert open_image(tmp_path / "a.jpg", shrink_to=448).size == (640, 400)
    assert open_image(tmp_path / "a.png", shrink_to=90).size == (640, 400)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png: is no regular file"):
        open_image(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"/dev/zero: is no regular file"):
        open_image("/dev/zero")


def test_a_link_to_nothing_and_an_impossible_name_say_so(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(ImageError, match=r"link\.png: is a link to a file that is not there"):
        open_image(tmp_path / "link.png")
    with pytest.raises(ImageError, match="cannot be opened"):
        open_image("a\0b.png")


def test_large_pictures_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "LARGE", 4 * 50 * 50)
    ramp(64, 64).save(tmp_path / "large.png")
    ramp(40, 40).save(tmp_path / "small.png")
    now, most = 0, 0
    guard = Lock()

    def use(name: str) -> None:
        nonlocal now, most
        with decode.decoded(tmp_path / name) as image:
            if image.width == 64:
                with guard:
                    now += 1
                    most = max(most, now)
                sleep(0.01)
                with guard:
                    now -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, ["large.png", "small.png"] * 8))
    assert most == 1


def test_memory_that_runs_out_while_a_picture_is_used_is_its_error(tmp_path: Path) -> None:
    ramp(4, 4).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: is too large \(MemoryError\)"), decode.decoded(tmp_path / "a.png"):
        raise MemoryError


def test_what_is_wrong_with_a_picture_in_use_names_it(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 3), np.nan, dtype=np.float32)).save(tmp_path / "nan.tif")
    with (
        pytest.raises(ImageError, match=r"nan\.tif: it holds levels that are no numbers"),
        decode.decoded(tmp_path / "nan.tif") as image,
    ):
        to_rgb(image)
    ramp(640, 400).save(tmp_path / "a.jpg")
    with decode.decoded(tmp_path / "a.jpg", shrink_to=90) as image:
        assert image.size == (160, 100)


def test_pillow_is_quiet_for_a_while_and_then_as_before(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("PIL.TiffImagePlugin")
    with decode.quiet_pillow():
        logger.error("more samples per pixel than can be decoded")
        warnings.warn("the picture is large", Image.DecompressionBombWarning, stacklevel=1)
    assert caplog.records == []
    logger.error("heard again")
    assert [record.message for record in caplog.records] == ["heard again"]


def test_a_postscript_file_under_a_pictures_name_is_given_to_no_other_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghostscript, marker = tmp_path / "gs", tmp_path / "it ran"
    ghostscript.write_text(f"#!/bin/sh\ntouch '{marker}'\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    file = tmp_path / "fox.png"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(ImageError, match=r"fox\.png: is not a picture in a format that can be read"):
        open_image(file)
    assert not marker.exists()


@pytest.mark.parametrize("image_format", decode.FORMATS)
def test_every_format_that_is_listed_is_read(image_format: str, tmp_path: Path) -> None:
    if image_format == "PSD":  # Pillow writes none: 1 by 1, three channels, not compressed
        content = (
            b"8BPS\0\x01" + bytes(6) + b"\0\x03" + b"\0\0\0\x01" * 2 + b"\0\x08\0\x03" + bytes(12) + b"\0\0\xff\0\0"
        )
        (tmp_path / "a").write_bytes(content)
    else:
        try:
            Image.new("RGB", (16, 16), (255, 0, 0)).save(tmp_path / "a", image_format)
        except (KeyError, OSError):
            pytest.skip(f"this Pillow writes no {image_format}")
    red, green, blue = to_rgb(open_image(tmp_path / "a")).getpixel((0, 0))  # type: ignore[misc]
    assert (red > 250, green < 5, blue < 5) == (True, True, True)
