"""A linear head fitted on a person's own ratings, keeps and deletes, or choices between two pictures.

Ridge regression predicts ratings (keeps as 1, deletes as 0); Bradley-Terry the odds of one picture being preferred to
another. Both choose their penalty by leave-one-out error, and their accuracy is that on pictures held out in folds: the
penalty of a fold is chosen without it. Nothing is drawn that depends on the order of the rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from clipcond.errors import ConfigError, ShapeError
from clipcond.score.aesthetic import AestheticHead
from clipcond.score.checks import groups_of, unit_rows, vector
from clipcond.score.correlation import concordance
from clipcond.score.statistics import Interval, bootstrap_ratio

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from clipcond.score.checks import Numbers

FOLDS = 5
MOST_PAIRS = 5_000  # of a Bradley-Terry fit: what half a minute is enough for at 768 numbers a picture
_RIDGE_PENALTIES = np.logspace(-6, 1, 15)[::-1]  # times the sum of squares; the strongest first, and of equals taken
_CHOICE_PENALTIES = np.logspace(-6, -1, 6)[::-1]
_STEPS = 50  # of Newton's method; a dozen are taken
_ROUGH, _FINE = 1e-4, 1e-12  # of Newton's decrement: to compare penalties, and for the fit itself


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LinearFit:
    """A fitted head: weight (P,) float64 on unit vectors, and bias.

    penalty: the chosen one, times the sum of squares.   accuracy: share of held-out pairs of pictures of one prompt put in
    the person's order (a tie counts half); 0.5 is chance.   pairs: how many it was measured on.
    held_out: what a fold holds.   rows: how many pictures were given.
    """

    method: Literal["ridge", "bradley-terry"]
    weight: NDArray[np.float64]
    bias: float
    penalty: float
    accuracy: Interval
    folds: int
    held_out: Literal["prompts", "pictures"]
    rows: int
    pairs: int

    def head(self, name: str, tower: str) -> AestheticHead:
        """The fit as an aesthetic head for the model `tower`, with its accuracy in the metadata."""
        said = {
            "method": self.method,
            "accuracy": f"{self.accuracy.value:.4f}",
            "interval": f"{self.accuracy.low:.4f} to {self.accuracy.high:.4f}",
            "folds": f"{self.folds} of {self.held_out}",
            "rows": str(self.rows),
            "pairs": str(self.pairs),
            "penalty": f"{self.penalty:.3g}",
        }
        return AestheticHead(
            name=name, weight=self.weight, bias=self.bias, towers=(tower,), metadata=tuple(said.items())
        )


def fit_ridge(
    images: Numbers, ratings: Numbers, *, prompts: Sequence[str], paths: Sequence[str], folds: int = FOLDS
) -> LinearFit:
    """Least squares with a penalty on the weight's square. (Hoerl and Kennard 1970.)

    images: (N, P), made unit length.   ratings: (N,), higher is better; 1 and 0 for kept and deleted.   prompts: N keys.
    paths: N different names.   A fold holds whole prompts where there are `folds` of them, else pictures.
    Raises ConfigError where ratings do not differ or are too few to hold some out.
    """
    rows = unit_rows("images", images)
    rated = vector("ratings", ratings, len(rows))
    order = _by_path(paths, prompts, len(rows))
    rows, rated = rows[order], rated[order]
    keys = [prompts[row] for row in order]
    if np.ptp(rated) == 0:
        raise ConfigError(f"every rating is {rated[0]:g}; a fit needs better and worse pictures")
    held_out, fold = _folds(keys, [paths[row] for row in order], folds)
    predicted = np.empty(len(rows))
    for test in _each(fold):
        weight, bias, _ = _ridge(rows[~test], rated[~test])
        predicted[test] = rows[test] @ weight + bias
    credit, decided = [], []
    for group in groups_of(list(zip(keys, fold.tolist(), strict=True)), len(rows)):
        counts = concordance(predicted[group], rated[group])
        credit.append(counts.credit)
        decided.append(counts.decided)
    weight, bias, penalty = _ridge(rows, rated)
    return LinearFit(
        method="ridge",
        weight=weight,
        bias=bias,
        penalty=penalty,
        accuracy=_held_out_accuracy(credit, decided),
        folds=folds,
        held_out=held_out,
        rows=len(rows),
        pairs=sum(decided),
    )


def fit_bradley_terry(
    images: Numbers, pairs: ArrayLike, *, prompts: Sequence[str], paths: Sequence[str], folds: int = FOLDS
) -> LinearFit:
    """Logistic regression on differences: P(i preferred to j) = 1 / (1 + exp(−weight · (image_i − image_j))).

    images: (N, P), made unit length.   pairs: (K, 2) row numbers, the preferred first; to more than 5,000 a fixed sample
    is fitted.   prompts: N keys.   paths: N different names.   The bias makes the mean score of the rows 0.   Folds and
    errors are as for `fit_ridge`; a pair is held out where both of its pictures are, and trains where neither is.
    (Bradley and Terry 1952.)
    """
    rows = unit_rows("images", images)
    order = _by_path(paths, prompts, len(rows))
    place = np.empty(len(order), dtype=np.intp)
    place[order] = np.arange(len(order))
    rows, keys = rows[order], [prompts[row] for row in order]
    known = place[_checked_pairs(pairs, len(rows))]
    chosen = _sample(known)
    held_out, fold = _folds(keys, [paths[row] for row in order], folds)
    credit, clusters = [], []
    for number in range(folds):
        test = known[(fold[known] == number).all(axis=1)]
        train = chosen[(fold[chosen] != number).all(axis=1)]
        if len(test) and len(train):
            weight, _, _ = _bradley_terry(rows, train)
            credit += ((1 + np.sign((rows[test[:, 0]] - rows[test[:, 1]]) @ weight)) / 2).tolist()
            clusters += [(keys[row], number) for row in test[:, 0]]
    groups = groups_of(clusters, len(credit))
    sums = [float(np.array(credit)[group].sum()) for group in groups]
    weight, bias, penalty = _bradley_terry(rows, chosen)
    return LinearFit(
        method="bradley-terry",
        weight=weight,
        bias=bias,
        penalty=penalty,
        accuracy=_held_out_accuracy(sums, [len(group) for group in groups]),
        folds=folds,
        held_out=held_out,
        rows=len(rows),
        pairs=len(credit),
    )


def preference_pairs(ratings: Numbers, prompts: Sequence[str]) -> NDArray[np.intp]:
    """Pairs of pictures of one prompt that are rated differently, the better first: (K, 2) row numbers.

    ratings: (N,); 1 and 0 for kept and deleted.   prompts: N keys.   Memory grows with the square of the largest prompt.
    """
    rated = vector("ratings", ratings)
    found = [np.zeros((0, 2), dtype=np.intp)]
    for group in groups_of(prompts, len(rated)):
        better, worse = np.nonzero(rated[group][:, None] > rated[group][None, :])
        found.append(np.column_stack([group[better], group[worse]]))
    return np.concatenate(found)


def _ridge(rows: NDArray[np.float64], rated: NDArray[np.float64]) -> tuple[NDArray[np.float64], float, float]:
    """Weight, bias and the relative penalty with the least squared leave-one-out error, which has a closed form."""
    middle, mean = rows.mean(axis=0), float(rated.mean())
    left, sizes, right = np.linalg.svd(rows - middle, full_matrices=False)
    squares, aligned = np.square(sizes), left.T @ (rated - mean)
    total = float(squares.sum()) or 1.0
    best = (np.inf, 0.0)
    for penalty in _RIDGE_PENALTIES:
        kept = squares / (squares + penalty * total)
        influence = 1 / len(rows) + np.square(left) @ kept
        errors = (rated - mean - left @ (kept * aligned)) / np.maximum(1 - influence, 1e-12)
        best = min(best, (float(np.square(errors).mean()), -float(penalty)))
    penalty = -best[1]
    weight = right.T @ (sizes / (squares + penalty * total) * aligned)
    return weight, mean - float(middle @ weight), penalty


def _bradley_terry(rows: NDArray[np.float64], pairs: NDArray[np.intp]) -> tuple[NDArray[np.float64], float, float]:
    """Weight, bias and the relative penalty with the least leave-one-out loss, to first order in what is left out."""
    used = np.unique(pairs)
    middle = rows[used].mean(axis=0)
    _, sizes, right = np.linalg.svd(rows[used] - middle, full_matrices=False)
    basis = right[sizes > 1e-10 * max(sizes[0], 1e-300)]  # at most as many directions as pictures
    reduced = (rows - middle) @ basis.T
    gaps = reduced[pairs[:, 0]] - reduced[pairs[:, 1]]
    total = float(np.square(gaps).sum()) or 1.0
    weight, best = np.zeros(gaps.shape[1]), (np.inf, 0.0, np.zeros(gaps.shape[1]))
    for penalty in _CHOICE_PENALTIES:
        weight, hessian = _newton(gaps, penalty * total, weight, _ROUGH)
        chance = _logistic(gaps @ weight)
        reach = np.einsum("kr,kr->k", gaps @ np.linalg.inv(hessian), gaps)
        left_out = gaps @ weight - reach / np.maximum(1 - reach * chance * (1 - chance), 1e-12) * (1 - chance)
        loss = float(np.logaddexp(0, -left_out).mean())
        if loss < best[0]:
            best = (loss, float(penalty), weight)
    weight, _ = _newton(gaps, best[1] * total, best[2], _FINE)
    full = basis.T @ weight
    return full, -float(rows.mean(axis=0) @ full), best[1]


def _newton(
    gaps: NDArray[np.float64], penalty: float, weight: NDArray[np.float64], least: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The minimum of Σ log(1 + exp(−gaps · w)) + penalty/2 · |w|², and the Hessian near it.

    least: of the fall in loss that a further step promises, over the number of gaps.
    """

    def loss(at: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, -gaps @ at).sum() + penalty / 2 * (at @ at))

    for _ in range(_STEPS):
        chance = _logistic(gaps @ weight)
        gradient = penalty * weight - gaps.T @ (1 - chance)
        hessian = _hessian(gaps, chance * (1 - chance)) + penalty * np.eye(len(weight))
        step = np.linalg.solve(hessian, gradient)
        if gradient @ step <= least * len(gaps):
            break
        size, before = 1.0, loss(weight)
        while size > 1e-6 and loss(weight - size * step) > before:
            size /= 2
        weight = weight - size * step
    return weight, hessian


def _hessian(gaps: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """Σ spread · gap gapᵀ, summed in float32: it only steers the steps, the gradient in float64 says where they end."""
    scaled = (gaps * np.sqrt(spread)[:, None]).astype(np.float32)
    return (scaled.T @ scaled).astype(np.float64)


def _logistic(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -logits))


def _folds(prompts: list[str], paths: list[str], folds: int) -> tuple[Literal["prompts", "pictures"], NDArray[np.intp]]:
    """The fold of each row: by prompt where there are enough, else by picture, in the order of their names' digests."""
    if folds < 2:
        raise ConfigError(f"folds is {folds}; expected 2 or more")
    by_prompt = len(set(prompts)) >= folds
    keys = prompts if by_prompt else paths
    if len(set(keys)) < 2 * folds and not by_prompt:
        raise ConfigError(f"there are {len(keys)} pictures; expected {2 * folds} or more for {folds} folds")
    names = sorted(set(keys), key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest())
    fold = {name: number % folds for number, name in enumerate(names)}
    return "prompts" if by_prompt else "pictures", np.array([fold[key] for key in keys], dtype=np.intp)


def _each(fold: NDArray[np.intp]) -> Iterator[NDArray[np.bool_]]:
    for number in range(int(fold.max()) + 1):
        yield fold == number


def _by_path(paths: Sequence[str], prompts: Sequence[str], length: int) -> NDArray[np.intp]:
    if len(prompts) != length:
        raise ShapeError(f"prompts: there are {len(prompts)}; expected {length}, one for each row")
    if len(paths) != length or len(set(paths)) != length:
        raise ConfigError(f"paths: expected {length} different ones, given {len(set(paths))} different of {len(paths)}")
    return np.array(sorted(range(length), key=paths.__getitem__), dtype=np.intp)


def _checked_pairs(pairs: ArrayLike, length: int) -> NDArray[np.intp]:
    given = np.asarray(pairs)
    if given.ndim != 2 or given.shape[1] != 2 or given.dtype.kind not in "iu":
        raise ShapeError(f"pairs: the shape is {given.shape} of {given.dtype}; expected (K, 2) row numbers")
    if not len(given):
        raise ConfigError("pairs: there is none; a fit needs one picture preferred to another")
    if given.min() < 0 or given.max() >= length:
        raise ConfigError(f"pairs: row {given.max() if given.min() >= 0 else given.min()} is not one of {length}")
    if (given[:, 0] == given[:, 1]).any():
        raise ConfigError(f"pairs: row {given[given[:, 0] == given[:, 1]][0, 0]} is preferred to itself")
    return given.astype(np.intp)


def _sample(pairs: NDArray[np.intp]) -> NDArray[np.intp]:
    """The pairs in order of their rows; of more than the most, a sample drawn with a fixed seed."""
    ordered = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    if len(ordered) <= MOST_PAIRS:
        return ordered
    return ordered[np.sort(np.random.default_rng(0).permutation(len(ordered))[:MOST_PAIRS])]


def _held_out_accuracy(credit: list[float], pairs: list[int]) -> Interval:
    """The share of pairs in the person's order, by prompt: those without a pair say nothing."""
    some = [number for number, count in enumerate(pairs) if count]
    if not some:
        raise ConfigError("no held-out prompt has two pictures that are rated differently; rate more of each prompt")
    return bootstrap_ratio([credit[number] for number in some], [pairs[number] for number in some])
