"""Small pictures with a caption or two, and tars of them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
PLACES = ("left", "right", "top")


def picture(number: int) -> Image.Image:
    draw = np.random.default_rng(number)
    return Image.fromarray(draw.integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize((32, 32), Image.Resampling.NEAREST)


def said(number: int) -> list[str]:
    words = f"{COLOURS[number % 8]} square, {PLACES[number // 8]}"
    return [words, f"a picture of a {words}"] if number % 2 else [words]


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def png(number: int) -> bytes:
    out = io.BytesIO()
    picture(number).save(out, "PNG")
    return out.getvalue()
