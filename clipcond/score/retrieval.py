"""Recall at k: the share of pictures that find their text, and of texts that find their picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipcond.errors import ModelError

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


def retrieval(images: Tensor, texts: Tensor, right: tuple[np.ndarray, np.ndarray], *, block: int = 1024) -> Retrieval:
    """Retrieval both ways.

    images: (N, P), texts: (M, P) unit rows. right: the row numbers (J,) and (J,) of the pairs that belong together;
    every row occurs. Scores are held for `block` queries at a time. Raises ModelError if a vector is not finite: a NaN is
    never above another score, so it would count as found.
    """
    for name, vectors in (("image", images), ("text", texts)):
        if not bool(torch.isfinite(vectors).all()):
            raise ModelError(
                f"{name} vectors hold values that are not finite; the {name} encoder is damaged or overflows"
            )
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
