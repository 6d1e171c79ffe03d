"""Pictures as people see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ramps import ramp

from clipcond.images import colour as module
from clipcond.images.colour import to_rgb
from clipcond.images.decode import open_image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    upright = Image.new("RGB", (6, 4), "white")
    upright.putpixel((0, 0), (255, 0, 0))
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    stored = upright.transpose(module._TURNS[undo[orientation]]) if orientation in undo else upright.copy()
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
