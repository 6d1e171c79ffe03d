"""Augmented pictures: random crops and colours, the same for the same step and picture."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageEnhance

from clipcond.errors import DataError, ImageError
from clipcond.images.decode import decoded, workers
from clipcond.images.preprocess import Preprocess
from clipcond.train.data import Pairs

_ASPECT = 4 / 3  # a crop is at most so much wider or higher than the picture; open_clip's range
_ATTEMPTS = 10
_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """crop: the smallest share of a picture's area that is cut out, 1 for none. jitter: by how much brightness, contrast
    and saturation change at the most, 0 for none."""

    crop: float = 1.0
    jitter: float = 0.0

    def __call__(self, image: Image.Image, preprocess: Preprocess, draw: np.random.Generator) -> np.ndarray:
        """Return (H, W, 3) uint8: a random part of the picture, resized to the model's input, in other colours."""
        if self.crop < 1:
            image = image.crop(self._box(image.width, image.height, draw))
            preprocess = replace(preprocess, policy="squash", short=None, stretch=None)
        pixels = preprocess.pixels(image)
        if not self.jitter:
            return pixels
        picture = Image.fromarray(pixels)
        for number in draw.permutation(len(_ENHANCERS)):
            factor = draw.uniform(max(0.0, 1 - self.jitter), 1 + self.jitter)
            picture = _ENHANCERS[number](picture).enhance(factor)
        return np.array(picture)

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
