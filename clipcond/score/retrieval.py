"""Recall at k: the share of pictures that find their text, and of texts that find their picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipcond.errors import ModelError

KS = (1, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Shares of queries, 0 to 1, that find a right answer among the first k; the gallery's size.

    k is 1, 5 and 10, where there are more answers than that to choose from; 1 in any case. chance: by the same names, the
    share that an order by lot would find.

    image_to_text: an image finds any of its captions. text_to_image: a caption finds its image. Equal captions, and
    images equal byte for byte, count as one: an answer is right if it is right for any of them. `images` and `texts`
    count the different ones. A wrong answer that ties with the right one counts against it.
    """

    image_to_text: dict[int, float]
    text_to_image: dict[int, float]
    images: int
    texts: int
    chance: dict[str, dict[int, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: {"image_to_text": {"R@1": …}, "text_to_image": {…}, "images": N, "texts": M, "chance": {…}}."""
        named = asdict(self)
        for sides in (named, named["chance"]):
            for side in ("image_to_text", "text_to_image"):
                sides[side] = {f"R@{k}": share for k, share in sides.get(side, {}).items()}
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
    chance = {
        "image_to_text": chance_recall(np.bincount(right[0], minlength=len(images)), len(texts), list(forth)),
        "text_to_image": chance_recall(np.bincount(right[1], minlength=len(texts)), len(images), list(back)),
    }
    return Retrieval(image_to_text=forth, text_to_image=back, images=len(images), texts=len(texts), chance=chance)


def chance_recall(right: np.ndarray, answers: int, ks: Sequence[int]) -> dict[int, float]:
    """Return by k the recall of an order by lot: the mean over queries of 1 - C(N - m, k) / C(N, k).

    right: (Q,) m, how many of the N answers are right for each query.
    """
    found = {}
    for k in ks:
        places = np.arange(min(k, answers))
        missed = np.clip(answers - right[:, None] - places, 0, None) / (answers - places)
        found[k] = round(float((1 - missed.prod(axis=1)).mean()), 6)
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Margins:
    """The nearest right and the nearest wrong image of M texts, (M,) each.

    rank: wrong images before the best right one, 0 for none.   right, wrong: the cosine of the best image of each kind, and
    right_image, wrong_image their numbers.
    """

    rank: np.ndarray
    right: np.ndarray
    right_image: np.ndarray
    wrong: np.ndarray
    wrong_image: np.ndarray

    @property
    def margin(self) -> np.ndarray:
        """(M,) by how much the best right image is nearer than the best wrong one."""
        difference: np.ndarray = self.right - self.wrong
        return difference


def text_margins(images: Tensor, texts: Tensor, right: tuple[np.ndarray, np.ndarray], *, block: int = 1024) -> Margins:
    """Compare each text with all images.

    images: (N, P), texts: (M, P) unit rows.   right: the row numbers of the pairs that belong together, as in `retrieval`.
    Where every image is right, the wrong one's cosine is -inf.
    """
    parts = []
    for scores, row, column in _blocks(texts, images, right[::-1], block):
        own = torch.full_like(scores, -torch.inf)
        own[row, column] = scores[row, column]
        scores[row, column] = -torch.inf
        (best, at), (other, other_at) = own.max(dim=1), scores.max(dim=1)
        parts.append(((scores >= best[:, None]).sum(dim=1), best, at, other, other_at))
    names = ("rank", "right", "right_image", "wrong", "wrong_image")
    columns = zip(*parts, strict=True)
    return Margins(**{name: torch.cat(each).cpu().numpy() for name, each in zip(names, columns, strict=True)})


def _recall(queries: Tensor, answers: Tensor, right: tuple[np.ndarray, np.ndarray], block: int) -> dict[int, float]:
    ranks = []
    for scores, row, column in _blocks(queries, answers, right, block):
        best = torch.full((len(scores),), -torch.inf, device=scores.device)
        best = best.scatter_reduce(0, row, scores[row, column], "amax")
        scores[row, column] = -torch.inf
        ranks.append((scores >= best[:, None]).sum(dim=1))
    rank = torch.cat(ranks)
    ks = [k for k in KS if k < len(answers)] or [1]
    return {k: round(float((rank < k).float().mean()), 6) for k in ks}


def _blocks(
    queries: Tensor, answers: Tensor, right: tuple[np.ndarray, np.ndarray], block: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the (b, N) scores of some queries at a time, to be changed in place, with rows and columns of right answers."""
    query, answer = (torch.from_numpy(np.ascontiguousarray(side)).to(queries.device) for side in right)
    for start in range(0, len(queries), block):
        scores = queries[start : start + block].float() @ answers.float().T
        mine = (query >= start) & (query < start + block)
        yield scores, query[mine] - start, answer[mine]
