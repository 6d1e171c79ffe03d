"""Colours of maps: from numbers to pictures, alone or over the picture that they explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

# dark to light, of even steps in lightness, so that it reads in grey too
RAMP = ((13, 8, 35), (63, 15, 109), (125, 30, 109), (188, 55, 84), (237, 105, 37), (251, 180, 26), (252, 255, 164))


def levels(one: Tensor, most: float) -> NDArray[np.uint8]:
    """A map (h, w) as numbers from 0 to 255, `most` and above being 255."""
    values = one.numpy().astype(np.float64) / most if most > 0 else np.zeros(tuple(one.shape))
    return np.round(255 * values.clip(0, 1)).astype(np.uint8)


def coloured(numbers: NDArray[np.uint8]) -> Image.Image:
    """Numbers from 0 to 255 in the colours of the ramp, as RGB."""
    places = np.linspace(0, 255, len(RAMP))
    channels = [np.interp(numbers, places, [colour[n] for colour in RAMP]) for n in range(3)]
    return Image.fromarray(np.round(np.stack(channels, axis=-1)).astype(np.uint8), "RGB")


def over(picture: Image.Image, numbers: NDArray[np.uint8]) -> Image.Image:
    """A picture dimmed to grey where a map is low, with the map's glow over it where it is high."""
    mask = Image.fromarray(numbers, "L").resize(picture.size, Image.Resampling.BICUBIC)
    base = Image.blend(picture.convert("L").convert("RGB"), Image.new("RGB", picture.size, (13, 8, 35)), 0.6)
    return Image.composite(picture.convert("RGB"), base, mask)
