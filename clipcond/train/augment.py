"""Augmented pictures: random crops, turns and colours, the same for the same step and picture."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageEnhance

from clipcond.errors import DataError, ImageError
from clipcond.images.colour import to_rgb
from clipcond.images.decode import decoded, workers
from clipcond.images.preprocess import Preprocess
from clipcond.train.data import Pairs

_ASPECT = 4 / 3  # a crop is at most so much wider or higher than the picture; open_clip's range
_ATTEMPTS = 10
_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """crop: the smallest share of a picture's area that is cut out, 1 for none. jitter: by how much brightness, contrast
    and saturation change at the most, 0 for none. turn: by how many degrees a picture is turned at the most, 0 for none.
    grey: the share of pictures that are shown without colour."""

    crop: float = 1.0
    jitter: float = 0.0
    turn: float = 0.0
    grey: float = 0.0

    def __bool__(self) -> bool:
        """True if anything changes."""
        return self != Augmentation()

    def __call__(self, image: Image.Image, preprocess: Preprocess, draw: np.random.Generator) -> np.ndarray:
        """Return (H, W, 3) uint8: a random part of the turned picture, resized to the model's input, in other colours."""
        if self.turn:
            image = _turned(self._small(_plain(image), preprocess), draw.uniform(-self.turn, self.turn))
        if self.crop < 1:
            image = image.crop(self._box(image.width, image.height, draw))
            preprocess = replace(preprocess, policy="squash", short=None, stretch=None)
        pixels = preprocess.pixels(image)
        picture = Image.fromarray(pixels)
        for number in draw.permutation(len(_ENHANCERS)) if self.jitter else ():
            factor = draw.uniform(max(0.0, 1 - self.jitter), 1 + self.jitter)
            picture = _ENHANCERS[number](picture).enhance(factor)
        if self.grey and draw.random() < self.grey:
            picture = picture.convert("L").convert("RGB")
        return np.array(picture)

    def _small(self, image: Image.Image, preprocess: Preprocess) -> Image.Image:
        """A large picture at a whole fraction of its size, of which the smallest crop has twice the model's pixels."""
        share = min(image.width / preprocess.width, image.height / preprocess.height)
        factor = int(share * math.sqrt(self.crop) / 2)
        return image.reduce(factor) if factor > 1 else image

    def _box(self, width: int, height: int, draw: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw a part of a random area and aspect that lies within the picture; the whole picture where none is found."""
        for _ in range(_ATTEMPTS):
            area = width * height * draw.uniform(self.crop, 1)
            aspect = math.exp(draw.uniform(-math.log(_ASPECT), math.log(_ASPECT)))
            wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < wide <= width and 0 < high <= height:
                left, top = int(draw.integers(0, width - wide + 1)), int(draw.integers(0, height - high + 1))
                return left, top, left + wide, top + high
        return 0, 0, width, height


def _plain(image: Image.Image) -> Image.Image:
    """The picture upright in RGB, and nothing but its pixels: a profile that was applied is not applied again."""
    return Image.fromarray(np.asarray(to_rgb(image)))


def _turned(image: Image.Image, degrees: float) -> Image.Image:
    """Turn a picture in RGB about its middle; what comes into view at the corners has the mean colour of the four."""
    right, low = image.width - 1, image.height - 1
    corners = np.array([image.getpixel(at) for at in ((0, 0), (right, 0), (0, low), (right, low))])
    fill = tuple(int(value) for value in corners.mean(axis=0).round())
    return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=fill)


class AugmentedPixels:
    """The pixels of images of `pairs`, decoded anew each time and augmented by the seed, the step and the image alone."""

    def __init__(self, pairs: Pairs, preprocess: Preprocess, augmentation: Augmentation, *, seed: int) -> None:
        self._pairs, self._preprocess, self._augmentation, self._seed = pairs, preprocess, augmentation, seed

    def at(self, step: int, rows: np.ndarray) -> np.ndarray:
        """(B,) row numbers to (B, H, W, 3) uint8 for a step. Raises DataError for an image that cannot be decoded."""
        with ThreadPoolExecutor(workers()) as pool:
            return np.stack(list(pool.map(lambda row: self._pixels(step, int(row)), rows)))

    def _pixels(self, step: int, row: int) -> np.ndarray:
        source, draw = self._pairs.images[row], np.random.default_rng([self._seed, 7, step, row])
        try:
            with source.stream() as stream, decoded(stream, name=str(source)) as image:
                return self._augmentation(image, self._preprocess, draw)
        except ImageError as error:
            raise DataError(f"cannot decode {error}") from error
