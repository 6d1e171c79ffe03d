"""The same picture in other hands: with dark outlines around its areas, as the outlines alone, in other proportions."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

# a change of colour below SOFTEST of 255 is no outline; the line is black from SOFTEST + 64 on
SOFTEST, STEEPNESS = 20, 4
CELLS, BEND = 4, 0.3  # a bent picture is of CELLS × CELLS cells, whose corners move by BEND of a cell at the most
HUE = 12  # of 255: by how much a bent picture's hues turn at the most


def outlines(image: Image.Image) -> Image.Image:
    """Return an "L" picture, white with dark lines where the colour of `image` changes within three pixels."""
    change = ImageChops.subtract(image.filter(ImageFilter.MaxFilter(3)), image.filter(ImageFilter.MinFilter(3)))
    red, green, blue = change.split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return ImageOps.invert(most.point(lambda value: max(0, value - SOFTEST) * STEEPNESS))


def outlined(image: Image.Image) -> Image.Image:
    """Return `image` with its outlines drawn over it."""
    return ImageChops.darker(image, outlines(image).convert("RGB"))


def drawn(image: Image.Image) -> Image.Image:
    """Return the outlines of `image` alone, black on white."""
    return outlines(image).convert("RGB")


def bent(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Return `image` in other proportions and slightly other hues: a grid is laid over it, and its inner corners move."""
    lines = np.linspace(0, image.width, CELLS + 1)
    corners = np.stack(np.meshgrid(lines, lines), axis=-1)  # [row, column] of (x, y)
    most = BEND * image.width / CELLS
    corners[1:-1, 1:-1] += draw.uniform(-most, most, (CELLS - 1, CELLS - 1, 2))
    mesh = []
    for row, column in np.ndindex(CELLS, CELLS):
        box = tuple(round(lines[at]) for at in (column, row, column + 1, row + 1))
        quad = [corners[row + down, column + right] for down, right in ((0, 0), (1, 0), (1, 1), (0, 1))]
        mesh.append((box, tuple(np.concatenate(quad).tolist())))
    image = image.transform(image.size, Image.Transform.MESH, mesh, Image.Resampling.BICUBIC, fillcolor="white")
    hue, saturation, value = image.convert("HSV").split()
    turn = int(draw.integers(-HUE, HUE + 1))
    return Image.merge("HSV", (hue.point(lambda at: (at + turn) % 256), saturation, value)).convert("RGB")
