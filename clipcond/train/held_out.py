"""The held-out pairs of a run: retrieval with the model as it stands, and the captions that fare best and worst."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipcond.encode.image import Normalisation
from clipcond.models.trainable import Trainable
from clipcond.score.retrieval import Margins, Retrieval, retrieval, text_margins
from clipcond.train.batches import id_rows
from clipcond.train.data import Pairs
from clipcond.train.evaluate import embed_gallery, gallery
from clipcond.train.model import image_features, text_features, train_mode
from clipcond.train.pixels import Pixels


class HeldOut:
    """A fixed gallery. Calling it embeds all pairs in float32 and measures; `margins` looks at the last measurement."""

    def __init__(
        self, trainable: Trainable, pairs: Pairs, normalise: Normalisation, device: torch.device, cache_gib: float
    ) -> None:
        self.gallery = gallery(pairs)
        self._model: Any = trainable.model
        self._pixels = Pixels(pairs, trainable.preprocess, cache_gib)
        self._normalise, self._device = normalise, device
        self._locked = not any(parameter.requires_grad for parameter in self._model.visual.parameters())
        self._known: dict[bytes, Tensor] = {}  # of a locked tower
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self) -> Retrieval:
        """Measure retrieval."""
        self._model.eval()
        with torch.no_grad():
            self._last = embed_gallery(self.gallery, self._images, self._texts)
        train_mode(self._model)
        return retrieval(*self._last, self.gallery.right)

    def margins(self) -> Margins:
        """Return how well each caption told its picture from the others, by the last measurement."""
        assert self._last is not None, "a measurement comes first"
        return text_margins(*self._last, self.gallery.right)

    def _images(self, rows: np.ndarray) -> Tensor:
        if not self._locked:
            return self._embed(rows)
        at = rows.tobytes()
        if at not in self._known:
            self._known[at] = self._embed(rows)
        return self._known[at]

    def _embed(self, rows: np.ndarray) -> Tensor:
        return image_features(self._model, self._normalise(self._pixels[rows], self._device)).cpu()

    def _texts(self, said: list[str]) -> Tensor:
        ids, _ = id_rows(said, content=len(self._model.positional_embedding) - 2)
        return text_features(self._model, torch.from_numpy(ids).to(self._device)).cpu()
