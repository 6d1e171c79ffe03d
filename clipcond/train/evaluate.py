"""Retrieval on a fixed gallery: which image finds its text, and which text its image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clipcond.errors import DataError
from clipcond.train.data import Pairs, read_pairs

if TYPE_CHECKING:
    from clipcond.encode.load import DualEncoder

KS = (1, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Shares of queries, 0 to 1, that find a right answer among the first 1, 5 and 10; the gallery's size.

    image_to_text: an image finds any of its captions. text_to_image: a caption finds its image. Equal captions, and
    images equal byte for byte, count as one: an answer is right if it is right for any of them. `images` and `texts`
    count the different ones. A wrong answer that ties with the right one counts against it.
    """

    image_to_text: dict[int, float]
    text_to_image: dict[int, float]
    images: int
    texts: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: {"image_to_text": {"R@1": …}, "text_to_image": {…}, "images": N, "texts": M}."""
        named = asdict(self)
        for side in ("image_to_text", "text_to_image"):
            named[side] = {f"R@{k}": share for k, share in named[side].items()}
        return named


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
    for row, (place, captions) in enumerate(zip(pairs.places, pairs.captions, strict=True)):
        image = numbers.setdefault(hashlib.sha256(place.read()).digest(), len(numbers))
        if image == len(rows):
            rows.append(row)
        right.update((image, texts.setdefault(caption, len(texts))) for caption in captions)
    images, said = np.array(sorted(right)).T
    return Gallery(pairs, np.array(rows), list(texts), (images, said))


def retrieval(images: Tensor, texts: Tensor, right: tuple[np.ndarray, np.ndarray], *, block: int = 1024) -> Retrieval:
    """Retrieval both ways.

    images: (N, P), texts: (M, P) unit rows. right: the row numbers (J,) and (J,) of the pairs that belong together;
    every row occurs. Scores are held for `block` queries at a time.
    """
    forth = _recall(images, texts, right, block)
    back = _recall(texts, images, right[::-1], block)
    return Retrieval(image_to_text=forth, text_to_image=back, images=len(images), texts=len(texts))


def _recall(queries: Tensor, answers: Tensor, right: tuple[np.ndarray, np.ndarray], block: int) -> dict[int, float]:
    query, answer = (torch.from_numpy(np.ascontiguousarray(side)).to(queries.device) for side in right)
    ranks = []
    for start in range(0, len(queries), block):
        scores = queries[start : start + block].float() @ answers.float().T
        mine = (query >= start) & (query < start + block)
        row, column = query[mine] - start, answer[mine]
        best = torch.full((len(scores),), -torch.inf, device=scores.device)
        best = best.scatter_reduce(0, row, scores[row, column], "amax")
        scores[row, column] = -torch.inf
        ranks.append((scores >= best[:, None]).sum(dim=1))
    rank = torch.cat(ranks)
    return {k: round(float((rank < k).float().mean()), 6) for k in KS}


def score_gallery(
    of: Gallery,
    embed_images: Callable[[np.ndarray], Tensor],
    embed_texts: Callable[[list[str]], Tensor],
    *,
    batch: int = 256,
) -> Retrieval:
    """Embed the gallery in batches and score it.

    embed_images: (B,) rows of `of.pairs` to (B, P) unit rows.   embed_texts: B captions to (B, P) unit rows.
    Captions are sorted by length first, so that short ones are not padded to long ones.
    """
    images = torch.cat([embed_images(of.rows[at : at + batch]) for at in range(0, len(of.rows), batch)])
    order = sorted(range(len(of.texts)), key=lambda number: len(of.texts[number]))
    parts = [embed_texts([of.texts[n] for n in order[at : at + batch]]) for at in range(0, len(order), batch)]
    texts = torch.empty_like(torch.cat(parts))
    texts[torch.tensor(order)] = torch.cat(parts)
    return retrieval(images, texts, of.right)


def evaluate(model: str | DualEncoder, data: str | Path | Pairs) -> Retrieval:
    """Retrieval of a model, given by its spec or loaded, on all pairs of a data source.

    Captions beyond 75 tokens are cut, as in training. Raises ModelError, DataError.
    """
    from clipcond.encode.load import load_dual
    from clipcond.encode.rows import Row
    from clipcond.train.captions import id_rows
    from clipcond.train.data import open_image

    dual = load_dual(model) if isinstance(model, str) else model
    pairs = data if isinstance(data, Pairs) else read_pairs(data)
    if len(pairs) < 2:
        raise DataError(f"{pairs.source or 'the gallery'} holds {len(pairs)} image; retrieval needs 2 or more")

    def texts(said: list[str]) -> Tensor:
        ids, _ = id_rows(said, dual.normalisation)
        projected = dual.text.pool_rows([Row(tuple(row)) for row in ids.tolist()]).projected
        assert projected is not None, "a dual encoder projects its texts"
        return torch.nn.functional.normalize(projected.float(), dim=-1).cpu()

    def images(rows: np.ndarray) -> Tensor:
        return dual.image.embed([open_image(pairs.places[row]) for row in rows]).cpu()

    return score_gallery(gallery(pairs), images, texts)
