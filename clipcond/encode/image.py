"""Pictures in, unit vectors out: the image tower over open_clip and transformers.

Preprocessing is `clipcond.images.preprocess`; normalisation is part of the batch that goes to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clipcond.encode.shapes import check_finite
from clipcond.errors import ConfigError, ModelError, ShapeError
from clipcond.images.decode import workers
from clipcond.images.preprocess import Preprocess
from clipcond.runtime.torchvision_repair import repair


class Normalisation:
    """A model's own mean and standard deviation of pixels, taken out of a batch."""

    def __init__(self, preprocess: Preprocess) -> None:
        self._mean = torch.tensor(preprocess.mean).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(preprocess.std).view(1, 3, 1, 1) * 255

    def __call__(self, pixels: np.ndarray, device: torch.device) -> Tensor:
        """Return (N, 3, H, W) float32 on the device of (N, H, W, 3) uint8 pixels."""
        batch = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float()
        return (batch - self._mean.to(device)) / self._std.to(device)


class ImageTower:
    """One image encoder behind one interface: pictures to float32 vectors of unit length."""

    def __init__(self, model: torch.nn.Module, preprocess: Preprocess, forward: Callable[[Tensor], Tensor]) -> None:
        """forward: (N, 3, height, width) normalised pixels → (N, P) projected, not yet normalised."""
        self.model, self.preprocess, self._forward = model, preprocess, forward
        self._normalise = Normalisation(preprocess)

    @classmethod
    def from_open_clip(cls, model: torch.nn.Module, config: Mapping[str, Any]) -> ImageTower:
        """From an open_clip model and its `preprocess_cfg`. Raises ModelError if either will not do."""
        if not hasattr(model, "visual"):
            raise ModelError(f"{type(model).__name__} has no image encoder; expected an open_clip CLIP")
        encode: Any = model.encode_image
        return cls(model, Preprocess.from_open_clip(config), encode)

    @classmethod
    def from_transformers(cls, model: torch.nn.Module, config: Mapping[str, Any]) -> ImageTower:
        """From a transformers CLIPModel or CLIPVisionModelWithProjection and its image processor's config."""
        vision: Any = getattr(model, "vision_model", None)
        project: Any = getattr(model, "visual_projection", None)
        if vision is None or project is None:
            raise ModelError(f"{type(model).__name__} has no image encoder with a projection; expected a CLIPModel")
        repair()
        return cls(
            model,
            Preprocess.from_processor(config),
            lambda pixels: project(vision(pixel_values=pixels).pooler_output),
        )

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, in which pictures are encoded."""
        return next(self.model.parameters()).dtype

    def embed(self, images: Sequence[Image.Image], batch_size: int = 32) -> Tensor:
        """Encode pictures; they are prepared in threads while the tower works.

        Returns (N, P) float32 on the CPU, rows of unit length; a row does not depend on its batch beyond 1e-6.
        Raises ConfigError for an empty sequence or a batch size below 1.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected 1 or more")
        if not images:
            raise ConfigError("no pictures to encode; expected one or more")
        with ThreadPoolExecutor(workers()) as pool:
            prepared = pool.map(self.preprocess.crops, images)
            return torch.cat([self.embed_crops(batch, batch_size) for batch in _batches(prepared, batch_size)])

    def embed_crops(self, crops: Sequence[np.ndarray], rows: int) -> Tensor:
        """Encode N pictures of which each has one crop or several, `rows` crops at a time: (N, P) float32 unit rows on the CPU.

        crops: (T, height, width, 3) uint8 of each, from `preprocess.crops`. Of several, the mean of their vectors, made unit.
        """
        pixels = np.concatenate(crops)
        parts = [self.embed_pixels(pixels[at : at + rows]) for at in range(0, len(pixels), rows)]
        vectors = parts[0] if len(parts) == 1 else torch.cat(parts)
        if len(vectors) == len(crops):
            return vectors
        ends = np.cumsum([len(each) for each in crops]).tolist()
        means = torch.stack([vectors[end - len(own) : end].mean(dim=0) for own, end in zip(crops, ends, strict=True)])
        return torch.nn.functional.normalize(means, dim=-1)

    @torch.inference_mode()
    def embed_pixels(self, pixels: np.ndarray) -> Tensor:
        """Encode one batch of prepared pictures, (N, height, width, 3) uint8, to (N, P) float32 unit rows on the CPU.

        Raises ShapeError if the pixels are not what `preprocess.pixels` makes, ModelError if a vector is not finite.
        """
        expected = (self.preprocess.height, self.preprocess.width, 3)
        if pixels.ndim != 4 or pixels.shape[1:] != expected or pixels.dtype != np.uint8:
            raise ShapeError(
                f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 (N, {', '.join(map(str, expected))})"
            )
        features = self._forward(self._normalise(pixels, self.device).to(self.dtype)).float().cpu()
        check_finite("image", features)
        return torch.nn.functional.normalize(features, dim=-1)


def _batches(items: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
