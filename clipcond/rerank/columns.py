"""The columns of numbers of a ranking, each on its named scale, and the noise of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipcond.rerank.settings import LongPrompt, Scoring
from clipcond.score.checks import groups_of
from clipcond.score.expression import ScoreExpression
from clipcond.score.scales import (
    CLIPSCORE_WEIGHT,
    NEGATIVE_WEIGHT,
    SCALES,
    clipscore,
    iqa,
    margin,
    pick,
    probability,
    refclipscore,
)
from clipcond.score.similarity import DIGITS, cosines

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from clipcond.rerank.scorer import EncodedText, Scorer

NOISE = 1.5e-6  # of a cosine: what two batches of a float32 model differ by, a last digit, and what comparing them is off by
IQA_PAIR = ("Good photo.", "Bad photo.")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ToScore:
    """R rows to score. vectors: (R, P) unit rows.   prompts, negatives: R texts, of which a negative may be empty.

    references: (K, P) unit rows of pictures to be like, where there are some.   external: columns of R numbers that others
    made.
    """

    vectors: torch.Tensor
    prompts: Sequence[str]
    negatives: Sequence[str]
    external: Mapping[str, NDArray[np.float64]]
    references: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.prompts)


def score_columns(rows: ToScore, scoring: Scoring, scorer: Scorer) -> dict[str, NDArray[np.float64]]:
    """Compute every column that the settings name, (R,) float64 by name. Each distinct text is encoded once."""
    columns: dict[str, NDArray[np.float64]] = {}
    scale = scorer.dual.logit_scale
    cosine = prompt_cosines(rows.vectors, rows.prompts, scorer, scoring.long_prompt) if scoring.needs_prompt else None
    for name in scoring.columns:
        if name in rows.external:
            columns[name] = rows.external[name]
        elif name == "aesthetic":
            assert scoring.aesthetic is not None
            columns[name] = scoring.aesthetic.scores(rows.vectors, tower=scorer.dual.name)
        elif name == "iqa":
            good, bad = (cosines(rows.vectors, text.vector) for text in scorer.texts(IQA_PAIR))
            columns[name] = iqa(good, bad, scale)
        else:
            assert cosine is not None
            columns[name] = _OF_COSINE[name](cosine, rows, scoring, scorer)
    return {name: np.round(values, DIGITS) + 0.0 for name, values in columns.items()}


def prompt_cosines(
    vectors: torch.Tensor, prompts: Sequence[str], scorer: Scorer, long_prompt: LongPrompt
) -> NDArray[np.float64]:
    """Cosine of each row with its own prompt, (R,); of a long prompt's chunks as the policy says."""
    found = np.zeros(len(prompts))
    groups = groups_of(prompts, len(prompts))
    texts = scorer.texts([prompts[rows[0]] for rows in groups])
    for rows, text in zip(groups, texts, strict=True):
        found[rows] = text_cosines(vectors[rows], text, long_prompt)
    return found


def text_cosines(vectors: torch.Tensor, text: EncodedText, long_prompt: LongPrompt) -> NDArray[np.float64]:
    """Cosine of (N, P) rows with a text: the mean of its chunks by tokens, the largest, the first or the least."""
    if long_prompt == "mean" or text.chunks == 1:
        return cosines(vectors, text.vector)
    if long_prompt == "first":
        return cosines(vectors, text.parts[0])
    each = np.stack([cosines(vectors, part) for part in text.parts])
    best: NDArray[np.float64] = each.max(axis=0) if long_prompt == "max" else each.min(axis=0)
    return best


def _probability(cosine: NDArray[np.float64], rows: ToScore, scoring: Scoring, scorer: Scorer) -> NDArray[np.float64]:
    """Among the distractors, of which a row's own prompt is none; alone where the model judges each pair by itself."""
    head = scorer.dual.head
    if head.activation == "sigmoid":
        alone: NDArray[np.float64] = head.probabilities(cosine[:, None])[:, 0]
        return alone
    texts = scorer.texts(scoring.distractors)
    others = np.stack([text_cosines(rows.vectors, text, scoring.long_prompt) for text in texts], axis=1)
    own = np.array([[prompt == text.text for text in texts] for prompt in rows.prompts])
    return probability(cosine, np.where(own, -1.0, others), scorer.dual.logit_scale)


def _refclipscore(cosine: NDArray[np.float64], rows: ToScore, scoring: Scoring, scorer: Scorer) -> NDArray[np.float64]:
    assert rows.references is not None
    return refclipscore(cosine, rows.vectors.double().numpy() @ rows.references.double().numpy().T)


def _margin(cosine: NDArray[np.float64], rows: ToScore, scoring: Scoring, scorer: Scorer) -> NDArray[np.float64]:
    """Against the negative prompt; without one, the cosine as it is."""
    negative = np.zeros(len(rows))
    some = [n for n, text in enumerate(rows.negatives) if text.strip()]
    if some:
        texts = [rows.negatives[row] for row in some]
        negative[some] = prompt_cosines(rows.vectors[some], texts, scorer, scoring.long_prompt)
    return margin(cosine, negative)


_Compute = Callable[["NDArray[np.float64]", ToScore, Scoring, "Scorer"], "NDArray[np.float64]"]
_OF_COSINE: dict[str, _Compute] = {
    "cosine": lambda cosine, rows, scoring, scorer: cosine,
    "clipscore": lambda cosine, rows, scoring, scorer: clipscore(cosine),
    "logit": lambda cosine, rows, scoring, scorer: scorer.dual.head.logits(cosine),
    "pick": lambda cosine, rows, scoring, scorer: pick(cosine, rows.prompts, scorer.dual.logit_scale),
    "probability": _probability,
    "margin": _margin,
    "refclipscore": _refclipscore,
}


def ordering_score(
    score: ScoreExpression, columns: Mapping[str, NDArray[np.float64]], prompts: Sequence[str]
) -> NDArray[np.float64]:
    """The numbers that order: a column as it is, or a sum of z-scores within the prompt."""
    if plain_column(score):
        return columns[score.columns[0]]
    return np.round(score.evaluate({name: columns[name] for name in score.columns}, prompts), DIGITS) + 0.0


def plain_column(score: ScoreExpression) -> bool:
    """True for a column alone, which keeps its own scale."""
    return len(score.terms) == 1 and score.terms[0].weight == 1


def noise_of(
    score: ScoreExpression, columns: Mapping[str, NDArray[np.float64]], scoring: Scoring, logit_scale: float
) -> float:
    """The distance at which two scorings of one picture may lie, from the noise of a cosine; 0 for numbers of others."""
    each = column_noise(score.columns, scoring, logit_scale)
    if plain_column(score):
        return max(each.values())
    spread = {name: float(np.std(columns[name])) or 1.0 for name in score.columns}
    return sum(abs(term.weight) * each[term.column] / spread[term.column] for term in score.terms) + 10.0**-DIGITS


def column_noise(names: Iterable[str], scoring: Scoring, logit_scale: float) -> dict[str, float]:
    """The noise of columns on their own scales, from that of a cosine."""
    steepest = {
        **dict.fromkeys(("clipscore", "refclipscore"), CLIPSCORE_WEIGHT),
        "logit": logit_scale,
        "margin": 1 + NEGATIVE_WEIGHT,
        **dict.fromkeys(("probability", "pick", "iqa"), logit_scale / 2),
        "aesthetic": 0.0 if scoring.aesthetic is None else float(np.linalg.norm(scoring.aesthetic.weight)),
    }
    given = scoring.external.columns if scoring.external else ()
    return {name: 0.0 if name in given else NOISE * steepest.get(name, 1.0) for name in names}


def formulas(scoring: Scoring) -> tuple[tuple[str, str], ...]:
    """Each column with its formula, or where its numbers are from."""
    given = scoring.external.columns if scoring.external else ()
    source = str(scoring.external.source) if scoring.external else ""
    return tuple((name, source if name in given else SCALES[name].formula) for name in scoring.columns)
