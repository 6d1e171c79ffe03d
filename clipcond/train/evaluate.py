"""Retrieval on a fixed gallery: which image finds its text, and which text its image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from clipcond.errors import DataError
from clipcond.runtime.devices import device_of
from clipcond.score.retrieval import Retrieval, retrieval
from clipcond.train.data import Pairs, read_pairs
from clipcond.train.pixels import prepare_all

if TYPE_CHECKING:
    from clipcond.models.load import DualEncoder

_BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """The different images and captions of some pairs; image `right[0][j]` and text `right[1][j]` belong together."""

    pairs: Pairs
    rows: np.ndarray
    texts: list[str]
    right: tuple[np.ndarray, np.ndarray]


def gallery(pairs: Pairs) -> Gallery:
    """Merge equal images and equal captions of `pairs`; reads every image file once, decodes none."""
    numbers: dict[bytes, int] = {}
    rows: list[int] = []
    texts: dict[str, int] = {}
    right: set[tuple[int, int]] = set()
    for row, (source, captions) in enumerate(zip(pairs.images, pairs.captions, strict=True)):
        image = numbers.setdefault(source.digest(), len(numbers))
        if image == len(rows):
            rows.append(row)
        right.update((image, texts.setdefault(caption, len(texts))) for caption in captions)
    images, said = np.array(sorted(right)).T
    return Gallery(pairs, np.array(rows), list(texts), (images, said))


def embed_gallery(
    of: Gallery,
    embed_images: Callable[[np.ndarray], Tensor],
    embed_texts: Callable[[list[str]], Tensor],
    *,
    batch: int = _BATCH,
) -> tuple[Tensor, Tensor]:
    """Embed the gallery in batches: (N, P) images and (M, P) texts, unit rows.

    embed_images: (B,) rows of `of.pairs` to (B, P) unit rows.   embed_texts: B captions to (B, P) unit rows.
    Captions are sorted by length first, so that short ones are not padded to long ones.
    """
    images = torch.cat([embed_images(of.rows[at : at + batch]) for at in range(0, len(of.rows), batch)])
    order = sorted(range(len(of.texts)), key=lambda number: len(of.texts[number]))
    parts = [embed_texts([of.texts[n] for n in order[at : at + batch]]) for at in range(0, len(order), batch)]
    texts = torch.empty_like(torch.cat(parts))
    texts[torch.tensor(order)] = torch.cat(parts)
    return images, texts


def score_gallery(
    of: Gallery,
    embed_images: Callable[[np.ndarray], Tensor],
    embed_texts: Callable[[list[str]], Tensor],
    *,
    batch: int = _BATCH,
) -> Retrieval:
    """Embed the gallery as `embed_gallery` does, and score it.

    Raises ModelError if a tower gives vectors that are not finite, which would compare with nothing.
    """
    return retrieval(*embed_gallery(of, embed_images, embed_texts, batch=batch), of.right)


def evaluate(model: str | DualEncoder, data: str | Path | Pairs) -> Retrieval:
    """Return the retrieval of a model, given by its spec or loaded, on all pairs of a data source.

    A spec is loaded to the GPU where there is one. Captions beyond the model's length are cut, as in training.
    Raises ModelError, DataError.
    """
    pairs = data if isinstance(data, Pairs) else read_pairs(data)
    if len(pairs) < 2:
        raise DataError(f"{pairs.source or 'the gallery'} holds {len(pairs)} image; retrieval needs 2 or more")

    from clipcond.models.load import load_dual

    dual = load_dual(model, device=str(device_of(None))) if isinstance(model, str) else model

    def embed_images(rows: np.ndarray) -> Tensor:
        sources = [pairs.images[row] for row in rows]
        return dual.image.embed_pixels(prepare_all(sources, dual.image.preprocess))

    return score_gallery(gallery(pairs), embed_images, dual.texts.embed)
