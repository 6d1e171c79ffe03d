"""Answers against the truth: accuracy, recall of each class, who is taken for whom, and whether probabilities can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipcond.errors import ConfigError, ShapeError
from clipcond.score.checks import at_least_one, matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

BINS = 15  # of confidence, as in Guo et al. 2017


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Classified:
    """N pictures with known classes against what was answered.

    accuracy, top5: shares of the pictures whose class came first, or among the first five.   recall: (C,) float64, the
    share of each class that was found, NaN for a class without a picture; mean_recall is the mean of the others.
    confusion: (C, C) int64, rows the truth, columns the answer.   calibration_error: the expected difference of
    confidence and accuracy over 15 bins (Guo et al. 2017).   confidence: the mean probability of the answers.
    """

    accuracy: float
    top5: float
    recall: NDArray[np.float64]
    mean_recall: float
    confusion: NDArray[np.int64]
    calibration_error: float
    confidence: float
    count: int


def compare_with_truth(probabilities: Numbers, truth: Sequence[int]) -> Classified:
    """Measure probabilities of classes against the right ones.

    probabilities: (N, C), each row the classes' probabilities; of equals the first column is the answer.
    truth: N numbers of columns.   Raises ShapeError, and ConfigError where there is no picture or no such class.
    """
    table = matrix("probabilities", probabilities)
    right = _columns(truth, table)
    order = np.argsort(-table, axis=1, kind="stable")
    answers = order[:, 0]
    confusion = np.zeros((table.shape[1], table.shape[1]), dtype=np.int64)
    np.add.at(confusion, (right, answers), 1)
    pictures = confusion.sum(axis=1)
    recall = np.full(table.shape[1], np.nan)
    np.divide(confusion.diagonal(), pictures, out=recall, where=pictures > 0)
    confidence = table[np.arange(len(table)), answers]
    return Classified(
        accuracy=float((answers == right).mean()),
        top5=float((order[:, :5] == right[:, None]).any(axis=1).mean()),
        recall=recall,
        mean_recall=float(np.nanmean(recall)),
        confusion=confusion,
        calibration_error=calibration_error(confidence, answers == right),
        confidence=float(confidence.mean()),
        count=len(table),
    )


def calibration_error(confidence: Numbers, correct: Sequence[bool] | NDArray[np.bool_], bins: int = BINS) -> float:
    """The expected calibration error: Σ over bins of (share of pictures in it) · |accuracy − mean confidence|.

    confidence: (N,) from 0 to 1.   correct: N answers.   Bins are of equal width; 0 where confidence is accuracy.
    """
    sure, hits = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    if sure.shape != hits.shape or sure.ndim != 1 or not len(sure):
        raise ShapeError(f"confidence: the shape is {sure.shape}; expected ({len(hits)},) with one or more")
    if not ((sure >= 0) & (sure <= 1 + 1e-9)).all():
        raise ConfigError("confidence: expected numbers from 0 to 1")
    place = np.minimum((sure * at_least_one("bins", bins)).astype(np.intp), bins - 1)
    gap = np.bincount(place, hits - sure, minlength=bins)
    return float(np.abs(gap).sum() / len(sure))


def accuracy(probabilities: Numbers, truth: Sequence[int]) -> float:
    """The share of (N, C) rows whose largest number is in the right column; of equals the first column answers."""
    table = matrix("probabilities", probabilities)
    return float((np.argmax(table, axis=1) == _columns(truth, table)).mean())


def _columns(truth: Sequence[int], table: NDArray[np.float64]) -> NDArray[np.intp]:
    right = np.asarray(truth, dtype=np.intp)
    if right.shape != (len(table),):
        raise ShapeError(f"truth: the shape is {right.shape}; expected ({len(table)},)")
    if not len(right):
        raise ConfigError("truth: there is no picture; expected one or more")
    if not ((right >= 0) & (right < table.shape[1])).all():
        raise ConfigError(f"truth: expected numbers from 0 to {table.shape[1] - 1}")
    return right
