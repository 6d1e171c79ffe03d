"""Pictures in, unit vectors out: the image tower over open_clip and transformers.

Preprocessing is `clipcond.images.preprocess`; normalisation is part of the batch that goes to the model. It computes in
float32 unless it is cast (`clipcond.encode.precision`); vectors are normalised in float32 whatever the weights are.
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
from clipcond.runtime.devices import exact_convolutions
from clipcond.runtime.torchvision_repair import repair

CPU_ROWS = 8  # pictures in a forward on a CPU: as many a second as with more, and the next ones are decoded meanwhile


class Normalisation:
    """A model's own mean and standard deviation of pixels, taken out of a batch."""

    def __init__(self, preprocess: Preprocess) -> None:
        self._mean = torch.tensor(preprocess.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocess.std).view(1, 3, 1, 1)

    def __call__(self, pixels: np.ndarray, device: torch.device) -> Tensor:
        """Return (N, 3, H, W) float32 on the device of (N, H, W, 3) uint8 pixels: bit for bit as torchvision's transforms do."""
        batch = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div_(255)
        return batch.sub_(self._mean.to(device)).div_(self._std.to(device))


class ImageTower:
    """One image encoder behind one interface: pictures to float32 vectors of unit length."""

    def __init__(
        self,
        model: torch.nn.Module,
        preprocess: Preprocess,
        forward: Callable[[Tensor], Tensor],
        encoder: Sequence[torch.nn.Module] = (),
    ) -> None:
        """forward: (N, 3, height, width) normalised pixels → (N, P) projected, not yet normalised.

        encoder: the modules of the model that pictures go through, by default all of it.
        """
        self.model, self.preprocess, self._forward = model, preprocess, forward
        self._encoder = torch.nn.ModuleList(encoder or (model,))
        self._normalise = Normalisation(preprocess)

    @classmethod
    def from_open_clip(cls, model: torch.nn.Module, config: Mapping[str, Any]) -> ImageTower:
        """From an open_clip model and its `preprocess_cfg`. Raises ModelError if either will not do."""
        if not hasattr(model, "visual"):
            raise ModelError(f"{type(model).__name__} has no image encoder; expected an open_clip CLIP")
        encode: Any = model.encode_image
        visual: Any = model.visual
        return cls(model, Preprocess.from_open_clip(config), encode, () if visual is None else (visual,))

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
            (vision, project),
        )

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, in which pictures are encoded."""
        return self._weight.dtype

    def rows_at_once(self, batch_size: int) -> int:
        """Return how many pictures to put into a forward where `batch_size` are allowed."""
        return min(batch_size, CPU_ROWS) if self.device.type == "cpu" else batch_size

    @property
    def _weight(self) -> torch.nn.Parameter:
        return next(self._encoder.parameters())

    def cast(self, dtype: torch.dtype) -> None:
        """Keep the weights that pictures go through in another dtype, and encode in it; those of texts stay as they are."""
        self._encoder.to(dtype)

    def embed(self, images: Sequence[Image.Image], batch_size: int = 32) -> Tensor:
        """Encode pictures; they are prepared in threads while the tower works.

        Returns (N, P) float32 on the CPU, rows of unit length; a row does not depend on its batch beyond 1e-6.
        Raises ConfigError for an empty sequence or a batch size below 1.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected 1 or more")
        if not images:
            raise ConfigError("no pictures to encode; expected one or more")
        rows = self.rows_at_once(batch_size)
        with ThreadPoolExecutor(workers()) as pool:
            prepared = pool.map(self.preprocess.crops, images)
            return torch.cat([self.embed_crops(batch, rows) for batch in _batches(prepared, rows)])

    def embed_crops(self, crops: Sequence[np.ndarray], rows: int) -> Tensor:
        """Encode N pictures of which each has one crop or several, `rows` crops at a time: (N, P) float32 unit rows on the CPU.

        crops: (T, height, width, 3) uint8 of each, from `preprocess.crops`. Of several, the mean of their vectors, made unit.
        """
        pixels = np.concatenate(crops)
        parts = [self.embed_pixels(pixels[at : at + rows], rows) for at in range(0, len(pixels), rows)]
        vectors = parts[0] if len(parts) == 1 else torch.cat(parts)
        if len(vectors) == len(crops):
            return vectors
        ends = np.cumsum([len(each) for each in crops]).tolist()
        means = torch.stack([vectors[end - len(own) : end].mean(dim=0) for own, end in zip(crops, ends, strict=True)])
        return torch.nn.functional.normalize(means, dim=-1)

    @torch.inference_mode()
    def embed_pixels(self, pixels: np.ndarray, rows: int | None = None) -> Tensor:
        """Encode one batch of prepared pictures, (N, height, width, 3) uint8, to (N, P) float32 unit rows on the CPU.

        rows: on a device other than the CPU a smaller batch is filled up to so many, as kernels differ with the shape.
        Raises ShapeError if the pixels are not what `preprocess.pixels` makes, ModelError if a vector is not finite.
        """
        expected = (self.preprocess.height, self.preprocess.width, 3)
        if pixels.ndim != 4 or pixels.shape[1:] != expected or pixels.dtype != np.uint8:
            raise ShapeError(
                f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 (N, {', '.join(map(str, expected))})"
            )
        batch = self._normalise(pixels, self.device).to(self.dtype)
        with exact_convolutions(batch.device, batch.dtype):
            features = self._forward(self._filled(batch, rows or len(pixels)))[: len(pixels)].float().cpu()
        check_finite("image", features)
        return torch.nn.functional.normalize(features, dim=-1)

    def _filled(self, batch: Tensor, rows: int) -> Tensor:
        """The batch with `rows` rows. On a CPU rows agree to 2e-7 whatever their number is, and an empty one costs as a full."""
        if batch.device.type == "cpu" or len(batch) >= rows:
            return batch
        return torch.cat([batch, batch.new_zeros(rows - len(batch), *batch.shape[1:])])


def _batches(items: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
