"""Pictures as people see them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from ramps import ramp

from clipcond.errors import ImageError
from clipcond.images import colour
from clipcond.images.colour import to_rgb
from clipcond.images.decode import open_image
from clipcond.images.orientation import TURNS


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    upright = Image.new("RGB", (6, 4), "white")
    upright.putpixel((0, 0), (255, 0, 0))
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    stored = upright.transpose(TURNS[undo[orientation]]) if orientation in undo else upright.copy()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    shown = to_rgb(open_image(tmp_path / "a.png"))
    assert shown.size == (6, 4)
    assert shown.tobytes() == upright.tobytes()


def test_damaged_orientation_is_ignored() -> None:
    image = ramp(5, 5)
    image.info["exif"] = b"Exif\0\0nonsense that is no TIFF"
    assert to_rgb(image).tobytes() == ramp(5, 5).tobytes()


def test_transparency_is_put_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert to_rgb(clear).getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb(Image.new("RGBA", (4, 4), (10, 20, 30, 255))).getpixel((0, 0)) == (10, 20, 30)
    assert to_rgb(Image.new("LA", (4, 4), (0, 0))).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)
    keyed = Image.new("RGB", (4, 4), (1, 2, 3))
    keyed.info["transparency"] = (1, 2, 3)
    assert to_rgb(keyed).getpixel((0, 0)) == (255, 255, 255)


def test_16_bit_greys_are_divided(tmp_path: Path) -> None:
    levels = np.array([[0, 1000, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    image = open_image(tmp_path / "deep.png")
    assert image.mode == "I;16"
    shown = np.asarray(to_rgb(image))
    assert shown[0, :, 0].tolist() == [0, 4, 128, 255]
    assert np.asarray(to_rgb(Image.fromarray(levels.astype(np.int32))))[0, :, 2].tolist() == [0, 4, 128, 255]


def test_cmyk_becomes_rgb() -> None:
    assert to_rgb(Image.new("CMYK", (2, 2), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_float_tiffs_are_scaled_as_their_largest_level_says(white: float, tmp_path: Path) -> None:
    levels = np.linspace(0, white, 5, dtype=np.float32)[None]
    Image.fromarray(levels).save(tmp_path / "a.tif")
    assert np.asarray(to_rgb(open_image(tmp_path / "a.tif")))[0, :, 1].tolist() == [0, 64, 128, 191, 255]


def test_levels_that_nobody_could_show_are_an_error() -> None:
    for level, message in (
        (np.nan, "levels that are no numbers or infinite"),
        (np.inf, "levels that are no numbers or infinite"),
        (-3.0, "its levels run from -3 to 1; expected none below 0"),
        (1e6, r"its floats run to 1e\+06; expected 0 to 1, to 255 or to 65535"),
    ):
        with pytest.raises(ImageError, match=message):
            to_rgb(Image.fromarray(np.array([[1.0, level]], dtype=np.float32)))


def test_32_bit_greys_of_full_range_are_not_white(tmp_path: Path) -> None:
    _write_tiff(tmp_path / "a.tif", np.array([0, 2**31, 2**32 - 1], dtype=np.uint32))
    assert np.asarray(to_rgb(open_image(tmp_path / "a.tif")))[0, :, 0].tolist() == [0, 128, 255]
    signed = Image.fromarray(np.array([[0, 2**30, 2**31 - 1]], dtype=np.int32))
    assert np.asarray(to_rgb(signed))[0, :, 0].tolist() == [0, 128, 255]


def _write_tiff(path: Path, row: np.ndarray) -> None:
    """One row of unsigned 32-bit levels, uncompressed: Pillow writes signed ones only."""
    tags = ((256, len(row)), (257, 1), (258, 32), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, row.nbytes))
    start = 8 + row.nbytes
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in (*tags, (339, 1)))
    directory = struct.pack("<H", len(tags) + 1) + entries + bytes(4)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, start) + row.astype("<u4").tobytes() + directory)


def test_of_two_orientation_tags_the_first_is_shown(tmp_path: Path) -> None:
    entries = b"".join(struct.pack("<HHIHH", 0x0112, 3, 1, value, 0) for value in (6, 3))
    exif = b"Exif\0\0" + struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 2) + entries + bytes(4)
    ramp(6, 4).save(tmp_path / "a.jpg", exif=exif)
    assert to_rgb(open_image(tmp_path / "a.jpg")).size == (4, 6)


def test_tiffs_are_turned_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp(6, 4).save(tmp_path / "a.tif", exif=exif)
    shown = to_rgb(open_image(tmp_path / "a.tif"))
    assert shown.tobytes() == ramp(6, 4).transpose(TURNS[6]).tobytes()


def _swapped_profile() -> bytes:
    """An sRGB profile whose red and green primaries have changed places."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = {bytes(profile[132 + 12 * n : 136 + 12 * n]): 132 + 12 * n for n in range(profile[131])}
    red, green = (bytes(profile[at[name] + 4 : at[name] + 12]) for name in (b"rXYZ", b"gXYZ"))
    profile[at[b"rXYZ"] + 4 : at[b"rXYZ"] + 12] = green
    profile[at[b"gXYZ"] + 4 : at[b"gXYZ"] + 12] = red
    return bytes(profile)


def test_colour_profiles_are_converted_to_srgb(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp", "a.tif"):
        Image.new("RGB", (16, 16), (250, 5, 5)).save(tmp_path / name, icc_profile=_swapped_profile())
        shown = to_rgb(open_image(tmp_path / name)).getpixel((8, 8))
        assert isinstance(shown, tuple)
        assert shown[1] > 200 > 100 > shown[0]


def test_an_srgb_profile_changes_no_bit_and_a_damaged_one_counts_as_none() -> None:
    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"nonsense", b"", 3):
        image = ramp(40, 40)
        image.info["icc_profile"] = profile
        assert to_rgb(image).tobytes() == ramp(40, 40).tobytes()


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    grey = Image.fromarray((np.arange(40 * 30, dtype=np.uint16) * 50).reshape(30, 40))
    clear = ramp(40, 30).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize((40, 30)))
    whole = [to_rgb(image).tobytes() for image in (grey, clear)]
    monkeypatch.setattr(colour, "_BAND", 100)
    assert [to_rgb(image).tobytes() for image in (grey, clear)] == whole


def test_cielab_is_shown(tmp_path: Path) -> None:
    Image.new("LAB", (8, 8), (136, 208, 195)).save(tmp_path / "a.tif")
    red, green, blue = np.asarray(to_rgb(open_image(tmp_path / "a.tif")))[4, 4].tolist()
    assert red > 230 > 40 > max(green, blue)
