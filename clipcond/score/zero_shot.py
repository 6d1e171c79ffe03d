"""Classes and queries out of text vectors: template ensembles, probabilities, the k best, arithmetic on vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipcond.encode.logits import LogitHead
from clipcond.errors import ConfigError
from clipcond.score.checks import at_least_one, matrix, unit_rows, vector
from clipcond.score.scales import LOGIT_SCALE

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from clipcond.score.checks import Numbers

OPENAI = LogitHead(scale=LOGIT_SCALE)
_DIGITS = 12  # of a cosine: what does not depend on the rows beside it
_CANCELLED = 1e-6  # length of a sum, over the lengths that went in, below which only rounding is left


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Best:
    """The k best of each row: column numbers (Q, k), best first, and their scores (Q, k) float64."""

    columns: NDArray[np.intp]
    scores: NDArray[np.float64]


def ensemble(templates: Numbers) -> NDArray[np.float64]:
    """One vector out of several texts of one class: each made unit length, their mean, made unit length again.

    templates: (T, P).   Returns (P,) float64. Raises ConfigError where there is none or they cancel out. (Radford et al.
    2021, section 3.1.4.)
    """
    rows = unit_rows("templates", templates)
    return combined(rows, np.ones(len(rows)))


def classifier(texts: Numbers, classes: Sequence[int], count: int) -> NDArray[np.float64]:
    """The ensembles of all classes, (C, P) float64, out of one batch of texts.

    texts: (T, P) vectors.   classes: the class of each text, 0 to `count` − 1; classes may have different numbers of
    texts.   Raises ConfigError for a class without a text, or one whose texts cancel out.
    """
    rows = unit_rows("texts", texts)
    labels = np.asarray(classes, dtype=np.intp)
    if labels.shape != (len(rows),) or not ((labels >= 0) & (labels < count)).all():
        raise ConfigError(f"classes: expected {len(rows)} numbers from 0 to {count - 1}, one for each text")
    missing = np.flatnonzero(np.bincount(labels, minlength=count) == 0)
    if len(missing):
        raise ConfigError(f"class {missing[0]} has no text; describe each class once or more")
    return np.array([ensemble(rows[labels == number]) for number in range(count)])


def class_cosines(images: Numbers, classes: Numbers) -> NDArray[np.float64]:
    """(N, C) float64 cosines of pictures and classes.

    images: (N, P).   classes: (C, P), as `classifier` makes them, one or more. Both are made unit length.
    """
    weights = unit_rows("classes", classes)
    if not len(weights):
        raise ConfigError("classes: there is none; expected one or more")
    cosines: NDArray[np.float64] = unit_rows("images", images, weights.shape[1]) @ weights.T
    return cosines


def class_probabilities(images: Numbers, classes: Numbers, *, head: LogitHead = OPENAI) -> NDArray[np.float64]:
    """Probabilities of classes, (N, C) float64: softmax(scale · cosine) over them, or of a SigLIP each class's own.

    images: (N, P).   classes: (C, P).   head: the model's.
    """
    return head.probabilities(class_cosines(images, classes))


def top_k(scores: Numbers, k: int) -> Best:
    """The k highest of each row, all where there are fewer; of equals the first column.

    scores: (Q, C).   For the lowest, pass −scores.
    """
    table = matrix("scores", scores)
    columns = np.argsort(-table, axis=1, kind="stable")[:, : at_least_one("k", k)]
    return Best(columns=columns, scores=np.take_along_axis(table, columns, axis=1))


def nearest(queries: Numbers, gallery: NDArray[np.floating[Any]] | Tensor, k: int, *, block: int = 8192) -> Best:
    """The k rows of a gallery with the highest cosine to each query: exact, and the same for any block.

    queries: (Q, P), gallery: (N, P) of any float dtype, memory-mapped too; both made unit length.   block: rows read and
    compared at a time, which bounds memory.   Scores are rounded to 12 digits; of equals the first row.
    """
    asked = unit_rows("queries", queries)
    at_least_one("k", k)
    columns, scores = np.zeros((len(asked), 0), dtype=np.intp), np.zeros((len(asked), 0))
    for start in range(0, len(gallery), at_least_one("block", block)):
        part = unit_rows(f"gallery from row {start + 1}", gallery[start : start + block], asked.shape[1])
        here = np.tile(np.arange(start, start + len(part)), (len(asked), 1))
        best = top_k(np.concatenate([scores, np.round(asked @ part.T, _DIGITS)], axis=1), k)
        columns = np.take_along_axis(np.concatenate([columns, here], axis=1), best.columns, axis=1)
        scores = best.scores
    return Best(columns=columns, scores=scores)


def combined(vectors: Numbers, weights: Numbers) -> NDArray[np.float64]:
    """Σ weight · vector, each made unit length before and the sum after, so that scores do not grow with the terms.

    vectors: (T, P).   weights: (T,), below 0 for what a picture should not show.   Returns (P,) float64.
    Raises ConfigError where there is no vector or the sum cancels out.
    """
    rows = unit_rows("vectors", vectors)
    sizes = vector("weights", weights, len(rows))
    total = sizes @ rows
    length = float(np.linalg.norm(total))
    if length <= _CANCELLED * float(np.abs(sizes).sum()):
        raise ConfigError("the vectors cancel out: no direction is left; change a weight or leave one out")
    direction: NDArray[np.float64] = total / length
    return direction
