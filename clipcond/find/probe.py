"""Linear probes on embeddings: logistic regression from a few examples or all, beside zero-shot and from zero-shot.

A probe that starts from nothing forgets what the model knows: with one example a class it is worse than no training
(Radford et al. 2021, figure 6). One that starts from the zero-shot weights and is held near them never has to be.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipcond.errors import ConfigError, ModelError
from clipcond.score.checks import unit_rows
from clipcond.score.classification import accuracy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

STRENGTHS = tuple(float(strength) for strength in np.logspace(-4, 1, 11))  # of the pull towards the prior weights
REGULARISATION = tuple(float(c) for c in np.logspace(-3, 4, 15))  # C of scikit-learn's logistic regression
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
ONE_SHOT_STRENGTH = 1.0  # where no example is left to choose it by
_FOLDS = 4
_STEPS = 200


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Examples:
    """Pictures with known classes: (N, P) vectors, unit rows in float64, and N numbers of classes, each from 0 to C − 1."""

    vectors: NDArray[np.float64]
    classes: NDArray[np.intp]

    @property
    def most_of_a_class(self) -> int:
        """The number of examples of the class that has most."""
        return int(np.bincount(self.classes).max(initial=0))

    def only(self, rows: Sequence[int] | NDArray[np.intp]) -> Examples:
        """The examples of these rows."""
        return Examples(vectors=self.vectors[rows], classes=self.classes[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRow:
    """Accuracy on the test pictures after training on `shots` examples a class (None for all), a mean over draws.

    probe: logistic regression from nothing.   from_zero_shot: from the zero-shot weights.   spread: the largest minus the
    smallest accuracy of `from_zero_shot` over the draws.   least: the smallest of them.   alphas: accuracy of the weights
    between zero-shot (0) and `from_zero_shot` (1).
    """

    shots: int | None
    probe: float
    from_zero_shot: float
    spread: float
    least: float
    alphas: tuple[float, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "shots": self.shots, "probe": self.probe, "from_zero_shot": self.from_zero_shot, "spread": self.spread,
            "least": self.least,
            "alphas": dict(zip(map(str, ALPHAS), self.alphas, strict=True)),
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """Zero-shot accuracy on the test pictures, and a row for each number of examples."""

    zero_shot: float
    rows: tuple[ProbeRow, ...]
    train: int
    test: int
    classes: int

    def to_json(self) -> dict[str, object]:
        """The document of `clipcond probe --json`."""
        return {
            "zero_shot": self.zero_shot, "rows": [row.to_json() for row in self.rows],
            "train": self.train, "test": self.test, "classes": self.classes,
        }  # fmt: skip


def examples(vectors: Numbers, classes: Sequence[int]) -> Examples:
    """Vectors of any length made unit length, with their classes."""
    return Examples(vectors=unit_rows("vectors", vectors), classes=np.asarray(classes, dtype=np.intp))


def draw(of: Examples, shots: int, seed: int) -> Examples:
    """Choose `shots` examples of each class, all where a class has fewer; the same for the same seed."""
    rng = np.random.default_rng([seed, shots])
    rows = [rng.permutation(np.flatnonzero(of.classes == number))[:shots] for number in np.unique(of.classes)]
    return of.only(np.sort(np.concatenate(rows)))


def logistic_regression(train: Examples, regularisation: float, count: int) -> NDArray[np.float64]:
    """Weights (C, P + 1), the last column the bias, by scikit-learn's logistic regression with C = `regularisation`.

    A class without an example is never answered. Raises ModelError without scikit-learn.
    """
    present = np.unique(train.classes)
    weights = np.zeros((count, train.vectors.shape[1] + 1))
    weights[:, -1] = -1e9
    if len(present) == 1:
        weights[present[0], -1] = 0.0
        return weights
    with warnings.catch_warnings():  # one example of most classes is what was asked for
        warnings.filterwarnings("ignore", message="The number of unique classes", category=UserWarning)
        fitted = _sklearn().LogisticRegression(C=regularisation, max_iter=1000).fit(train.vectors, train.classes)
    slopes, bias = fitted.coef_, fitted.intercept_
    if len(present) == 2:  # one row that stands for both
        slopes, bias = np.concatenate([-slopes, slopes]), np.concatenate([-bias, bias])
    weights[present] = np.column_stack([slopes, bias])
    return weights


def fit_near(train: Examples, prior: NDArray[np.float64], strength: float, logit_scale: float) -> NDArray[np.float64]:
    """Weights (C, P) that fit the examples and stay near `prior`, the zero-shot weights (C, P) of unit length.

    Minimises mean cross-entropy of logit_scale · x · W + strength · logit_scale · ‖W − prior‖² by L-BFGS in float64, a
    convex problem; as strength grows the result goes to the prior.
    """
    import torch

    vectors, classes = torch.from_numpy(train.vectors), torch.from_numpy(train.classes.astype(np.int64))
    start = torch.from_numpy(np.ascontiguousarray(prior, dtype=np.float64))
    weights = start.clone().requires_grad_(True)
    solver = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe", tolerance_grad=1e-7)

    def loss() -> torch.Tensor:
        solver.zero_grad()
        fit = torch.nn.functional.cross_entropy(logit_scale * vectors @ weights.T, classes)
        value = fit + strength * logit_scale * (weights - start).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    found: NDArray[np.float64] = weights.detach().numpy()
    return found


def chosen(
    settings: Sequence[float], train: Examples, fitted: Callable[[Examples, float], NDArray[np.float64]]
) -> float:
    """The setting with the best accuracy over folds of the examples; of equals the middle one of them.

    Folds hold the same share of every class; a class with one example is in every training part.
    """
    order = np.argsort(train.classes, kind="stable")
    place = np.empty(len(order), dtype=np.intp)
    for number in np.unique(train.classes):
        rows = order[train.classes[order] == number]
        place[rows] = np.arange(len(rows)) % _FOLDS if len(rows) > 1 else -1
    scores = np.zeros(len(settings))
    for fold in range(_FOLDS):
        held, rest = np.flatnonzero(place == fold), np.flatnonzero(place != fold)
        if len(held) and len(rest):
            scores += [_right(fitted(train.only(rest), each), train.only(held)) for each in settings]
    best = np.flatnonzero(scores == scores.max())
    return settings[int(best[len(best) // 2])]


def probe(
    train: Examples,
    test: Examples,
    zero_shot: NDArray[np.float64],
    *,
    logit_scale: float,
    shots: Sequence[int | None] = (1, 2, 4, 8, 16, None),
    draws: int = 3,
    seed: int = 0,
    on_progress: Callable[[int], object] = lambda count: None,
) -> ProbeReport:
    """Compare probes with zero-shot on the test pictures, for several numbers of examples a class.

    zero_shot: (C, P) unit rows, a class each.   shots: None for all examples, drawn once.   draws: of the few-shot sets.
    The regularisation of each fit is chosen on its own examples, never on the test pictures.
    Raises ConfigError without examples, ModelError without scikit-learn.
    """  # fmt: skip
    if not len(train.classes) or not len(test.classes):
        raise ConfigError("expected one or more pictures to train on and to test on")
    _sklearn()
    rows = []
    for count in shots:
        sets = [draw(train, count, seed + number) for number in range(draws)] if count else [train]
        found = [_compare(some, test, zero_shot, logit_scale) for some in sets]
        plain, near = np.array([each[0] for each in found]), np.array([each[1] for each in found])
        rows.append(
            ProbeRow(
                shots=count, probe=float(plain.mean()), from_zero_shot=float(near[:, -1].mean()),
                spread=float(np.ptp(near[:, -1])), least=float(near[:, -1].min()), alphas=tuple(map(float, near.mean(axis=0))),
            )
        )  # fmt: skip
        on_progress(1)
    return ProbeReport(
        zero_shot=accuracy(test.vectors @ zero_shot.T, list(test.classes)), rows=tuple(rows), train=len(train.classes),
        test=len(test.classes), classes=len(zero_shot),
    )  # fmt: skip


def _compare(
    train: Examples, test: Examples, zero_shot: NDArray[np.float64], logit_scale: float
) -> tuple[float, tuple[float, ...]]:
    """Return the accuracy of the plain probe, and those of the weights between zero-shot and the probe that starts there."""
    count, most = len(zero_shot), train.most_of_a_class

    def plain(some: Examples, setting: float) -> NDArray[np.float64]:
        return logistic_regression(some, setting, count)

    def near(some: Examples, setting: float) -> NDArray[np.float64]:
        return fit_near(some, zero_shot, setting, logit_scale)

    alone = plain(train, 1.0 if most < 2 else chosen(REGULARISATION, train, plain))
    strength = ONE_SHOT_STRENGTH if most < 2 else chosen(STRENGTHS, train, near)
    weights = near(train, strength)
    between = tuple(_right((1 - alpha) * zero_shot + alpha * weights, test) for alpha in ALPHAS)
    return _right(alone, test), between


def _right(weights: NDArray[np.float64], of: Examples) -> float:
    """The share of examples that weights (C, P) or (C, P + 1) answer rightly."""
    bias = weights[:, of.vectors.shape[1] :].sum(axis=1)
    return accuracy(of.vectors @ weights[:, : of.vectors.shape[1]].T + bias, list(of.classes))


def _sklearn() -> Any:
    try:
        from sklearn import linear_model  # type: ignore[import-untyped]
    except ImportError as error:
        raise ModelError('a probe needs scikit-learn, which is not installed: pip install "clipcond[probe]"') from error
    return linear_model
