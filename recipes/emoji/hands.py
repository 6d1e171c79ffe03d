"""The same picture in two other hands: with dark outlines around its areas, and as the outlines alone."""

from __future__ import annotations

from PIL import Image, ImageChops, ImageFilter, ImageOps

# a change of colour below SOFTEST of 255 is no outline; the line is black from SOFTEST + 64 on
SOFTEST, STEEPNESS = 20, 4


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
