"""Prompt tuning on cached picture features: weights of templates, or context vectors, learned from pictures with known classes.

All of it starts at zero-shot and is held back by pictures that are not learned from: the step with the least loss on them
is kept, and that may be step 0. Adam on all pictures at once; a step needs one pass of the text encoder over the classes,
which share the start of their rows, and none over pictures. The encoders stay as they are. (CoOp: Zhou et al. 2022, "Learning to
Prompt for Vision-Language Models".)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipcond.encode.context import context_rows
from clipcond.errors import ConfigError, DataError
from clipcond.find.probe import Examples
from clipcond.find.tuned import Tuned
from clipcond.rerank.scorer import Scorer
from clipcond.score.statistics import Interval, paired_comparison
from clipcond.score.thresholds import wilson

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

ZERO_SHOT = "zero-shot"
_SURE = 0.05  # p below which a difference is not put down to chance


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneSettings:
    """rate: a step of Adam, as a share of the size of a token embedding's numbers, or of a template's logit.

    steps: the most.   patience: steps without a smaller loss on the validation pictures before it stops.
    Raises ConfigError for what is out of range.
    """

    rate: float = 0.05
    steps: int = 200
    patience: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 10:
            raise ConfigError(f"rate is {self.rate:g}; expected more than 0, up to 10")
        if self.steps < 1 or self.patience < 1:
            raise ConfigError(f"steps is {self.steps} and patience {self.patience}; expected 1 or more of both")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Split:
    """Pictures to learn from, to stop by, and to measure on."""

    fit: Examples
    validation: Examples
    test: Examples


def split(of: Examples, share: float, seed: int, test: Examples | None = None) -> Split:
    """Hold out a share of each class for validation, and as many for the test unless other pictures are given for it.

    One at the least of each part, of a class with a picture more than that; a smaller class is learned from alone. The same
    for the same seed. Raises ConfigError for a share out of range, DataError where nothing is held out.
    """
    if not 0 < share < 0.5:
        raise ConfigError(f"hold_out is {share:g}; expected a share above 0 and below 0.5")
    rng, parts = np.random.default_rng(seed), 1 if test is not None else 2
    rows: list[list[int]] = [[], [], []]
    for number in np.unique(of.classes):
        mixed = rng.permutation(np.flatnonzero(of.classes == number)).tolist()
        held = max(1, round(share * len(mixed))) if len(mixed) > parts else 0
        rows[1] += mixed[:held]
        rows[2] += mixed[held : parts * held]
        rows[0] += mixed[parts * held :]
    if not rows[1]:
        raise DataError(f"no class has {parts + 1} pictures, of which {parts} could be held out; give more pictures")
    fit, validation, own = (of.only(np.array(sorted(each), dtype=np.intp)) for each in rows)
    return Split(fit=fit, validation=validation, test=own if test is None else test)


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRow:
    """A way to say classes, measured.

    method: zero-shot, or what was learned.   start: the accuracy on the test pictures before the first step.   accuracy: on
    the test pictures, with Wilson's interval.   validation, loss: accuracy and cross-entropy on the pictures that it was
    stopped by.   step: the one that was kept, 0 for the start.   gained, lost: test pictures that it alone answers rightly,
    and those that zero-shot alone does.   p_value: two-sided, that counts as uneven arise by chance.
    """

    method: str
    start: float
    accuracy: Interval
    validation: float
    loss: float
    step: int
    gained: int = 0
    lost: int = 0
    p_value: float = 1.0

    @property
    def worth(self) -> tuple[float, float]:
        """Smaller for what the validation pictures prefer: by accuracy, then by loss, of which rounding is no part."""
        return -self.validation, round(self.loss, 5)

    def to_json(self) -> dict[str, object]:
        return {
            "method": self.method, "start": self.start, "accuracy": self.accuracy.value, "low": self.accuracy.low,
            "high": self.accuracy.high, "validation": self.validation, "validation_loss": self.loss, "step": self.step,
            "gained": self.gained, "lost": self.lost, "p_value": self.p_value,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TuneReport:
    """Zero-shot in the first row, then what was learned; `tuned` in the order of the rows behind the first.

    fit, validation, test: numbers of pictures.
    """

    rows: tuple[TuneRow, ...]
    tuned: tuple[Tuned, ...]
    fit: int
    validation: int
    test: int

    @property
    def best(self) -> int:
        """The row that the validation pictures choose: by accuracy, then by loss; zero-shot if none is better."""
        return min(range(len(self.rows)), key=lambda at: self.rows[at].worth)

    @property
    def best_tuned(self) -> Tuned:
        """The best of what was learned, by the same rule."""
        return self.tuned[min(range(len(self.tuned)), key=lambda at: self.rows[at + 1].worth)]

    def learned(self, kind: str) -> Tuned:
        """The tuned classes of a kind that was asked for."""
        return next(each for each in self.tuned if each.kind == kind)

    @property
    def verdict(self) -> str:
        """A line that says whether tuning helps."""
        row, plain = self.rows[self.best], self.rows[0]
        if self.best == 0:
            return "tuning does not help: on the validation pictures nothing is better than zero-shot"
        points = f"{100 * (row.accuracy.value - plain.accuracy.value):+.1f} points on {self.test:,} test pictures"
        if row.gained <= row.lost:
            return f"tuning does not help: {row.method}, the best on the validation pictures, is {points}"
        told = f"{row.gained:,} gained, {row.lost:,} lost, p = {row.p_value:.2g}"
        if row.p_value < _SURE:
            return f"{row.method} helps: {points} ({told})"
        return f"{row.method} may help: {points}, which chance can do as well ({told}); more test pictures would tell"

    def to_json(self) -> dict[str, object]:
        """The document of `clipcond tune --json`."""
        return {
            "rows": [row.to_json() for row in self.rows], "best": self.rows[self.best].method, "verdict": self.verdict,
            "fit": self.fit, "validation": self.validation, "test": self.test,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Start:
    """A start of learning: the values of step 0, the vectors (C, P) that values make, and the size of a value."""

    kind: str
    values: Tensor
    vectors_of: Callable[[Tensor], Tensor]
    kept: Callable[[Tensor], Tensor]  # the values as a file holds them
    sentences: tuple[str, ...]
    scale: float = 1.0


def start_of(kind: str, scorer: Scorer, names: Sequence[str], templates: Sequence[str], sentence: str) -> Start:
    """Return the start of a kind: weights of `templates` all alike, or the words of `sentence` before its `{}` as context.

    Raises what `context_rows` raises.
    """
    import torch
    from torch.nn.functional import normalize

    if kind == "templates":
        texts = [template.replace("{}", name) for name in names for template in templates]
        vectors = torch.tensor(np.array([each.vector for each in scorer.texts(texts)]))
        table = normalize(vectors.reshape(len(names), len(templates), -1), dim=-1)
        return Start(
            kind=kind, values=torch.zeros(len(templates), dtype=torch.float64), sentences=tuple(templates),
            vectors_of=lambda logits: normalize(torch.einsum("t,ctp->cp", logits.softmax(0), table), dim=-1),
            kept=lambda logits: logits.softmax(0),
        )  # fmt: skip
    rows = context_rows(scorer.dual.texts, sentence, names)
    start = rows.start if kind == "shared" else rows.start.repeat(len(names), 1, 1)
    return Start(
        kind=kind,
        values=start,
        vectors_of=rows.encode,
        kept=lambda context: context,
        sentences=(sentence,),
        scale=rows.scale(),
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Fitted:
    """The values of the step with the least loss on the validation pictures, and the classes' vectors (C, P) before and then."""

    values: Tensor
    step: int
    loss: float
    before: NDArray[np.float64]
    vectors: NDArray[np.float64]


def fit(
    start: Start,
    pictures: Split,
    logit_scale: float,
    settings: TuneSettings,
    on_progress: Callable[[int], object] = lambda count: None,
) -> Fitted:
    """Learn by Adam on the cross-entropy of logit_scale · cosine over all pictures at once; the same for the same pictures."""
    import torch

    values = start.values.clone().requires_grad_(True)
    solver = torch.optim.Adam([values], lr=settings.rate * start.scale)
    loss = _loss_of(pictures.fit, logit_scale, values.dtype)
    held_out = _loss_of(pictures.validation, logit_scale, values.dtype)
    now = start.vectors_of(values)
    before = best = now.detach()
    least, kept, step = float(held_out(best)), start.values, 0
    for number in range(1, settings.steps + 1):
        solver.zero_grad()
        loss(now).backward()  # type: ignore[no-untyped-call]
        solver.step()
        on_progress(1)
        now = start.vectors_of(values)
        if (found := float(held_out(now.detach()))) < least:
            least, kept, step, best = found, values.detach().clone(), number, now.detach()
        elif number - step >= settings.patience:
            break
    return Fitted(
        values=kept, step=step, loss=least, before=before.double().numpy(), vectors=best.double().numpy()
    )  # fmt: skip


def _loss_of(of: Examples, logit_scale: float, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The mean cross-entropy of examples, as a function of the classes' vectors (C, P)."""
    import torch
    from torch.nn.functional import cross_entropy

    pictures = torch.from_numpy(logit_scale * of.vectors).to(dtype)
    classes = torch.from_numpy(of.classes.astype(np.int64))
    return lambda vectors: cross_entropy(pictures @ vectors.T, classes)


def tune(
    scorer: Scorer,
    pictures: Split,
    zero_shot: NDArray[np.float64],
    starts: Sequence[Start],
    names: Sequence[str],
    settings: TuneSettings,
    on_progress: Callable[[int], object] = lambda count: None,
) -> TuneReport:
    """Learn from each start, and measure it beside zero-shot, whose vectors are (C, P) unit rows of the classes `names`.

    Raises ModelError for states that are not finite.
    """
    scale = scorer.dual.head.scale
    rows, tuned = [_row(ZERO_SHOT, _as_it_is(zero_shot, pictures, scale), zero_shot, pictures)], []
    for start in starts:
        found = fit(start, pictures, scale, settings, on_progress)
        rows.append(_row(start.kind, found, zero_shot, pictures))
        tuned.append(
            Tuned(
                kind=start.kind, values=start.kept(found.values).float().numpy(), sentences=start.sentences,
                names=tuple(names), model=scorer.dual.name, fingerprint=scorer.label_space().model,
            )
        )  # fmt: skip
    return TuneReport(
        rows=tuple(rows), tuned=tuple(tuned), fit=len(pictures.fit.classes),
        validation=len(pictures.validation.classes), test=len(pictures.test.classes),
    )  # fmt: skip


def _as_it_is(vectors: NDArray[np.float64], pictures: Split, logit_scale: float) -> Fitted:
    """Vectors from which nothing was learned."""
    import torch

    values = torch.from_numpy(vectors)
    loss = float(_loss_of(pictures.validation, logit_scale, values.dtype)(values))
    return Fitted(values=values, step=0, loss=loss, before=vectors, vectors=vectors)


def _row(method: str, found: Fitted, zero_shot: NDArray[np.float64], pictures: Split) -> TuneRow:
    right, plain = _right(found.vectors, pictures.test), _right(zero_shot, pictures.test)
    one, two = right[right != plain].astype(float), plain[right != plain].astype(float)
    return TuneRow(
        method=method, start=float(_right(found.before, pictures.test).mean()), step=found.step, loss=found.loss,
        accuracy=wilson(int(right.sum()), len(right)), validation=float(_right(found.vectors, pictures.validation).mean()),
        gained=int(one.sum()), lost=int(two.sum()), p_value=paired_comparison(one, two).p_value if len(one) else 1.0,
    )  # fmt: skip


def _right(vectors: NDArray[np.float64], of: Examples) -> NDArray[np.bool_]:
    """(N,) True for examples whose class has the highest cosine; of equals the first counts."""
    right: NDArray[np.bool_] = (of.vectors @ vectors.T).argmax(axis=1) == of.classes
    return right
