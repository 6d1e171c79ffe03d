"""The scales on which a picture is scored, by name: the function, its formula, its range and what it needs.

`cosine` in every formula is that of unit vectors of one model. Half of the questions about such scores ask on which
scale a number is, so every table names it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from clipcond.encode.logits import softmax
from clipcond.errors import ConfigError, ShapeError
from clipcond.score.checks import finite, groups_of, matrix, not_negative, positive, vector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

LOGIT_SCALE = 100.0  # of OpenAI's models: exp of the learned temperature
NEGATIVE_WEIGHT = 0.5

CLIPSCORE_WEIGHT = 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A named scale: what a number on it means. low, high: None where the model's own range is open."""

    name: str
    formula: str
    low: float | None
    high: float | None
    higher_is_better: bool
    needs: tuple[str, ...]  # beside the picture
    source: str


def clipscore(cosine: Numbers) -> NDArray[np.float64]:
    """2.5 · max(cosine, 0), each clamped before any mean. cosine: any axes. (Hessel et al. 2021, equation 1.)"""
    return CLIPSCORE_WEIGHT * np.maximum(finite("cosine", cosine), 0.0)


def refclipscore(cosine: Numbers, references: Numbers) -> NDArray[np.float64]:
    """Harmonic mean of CLIPScore and the largest cosine to a reference, both at least 0. (Hessel et al. 2021, section 3.)

    cosine: (N,) with the prompt.   references: (N, R) with each of R references.   Returns (N,); 0 where either is 0.
    Raises ShapeError for other axes.
    """
    with_prompt = clipscore(vector("cosine", cosine))
    given = matrix("references", references)
    if len(given) != len(with_prompt) or not given.shape[1]:
        raise ShapeError(f"references: the shape is {given.shape}; expected ({len(with_prompt)}, 1 or more)")
    with_reference = np.maximum(given.max(axis=1), 0.0)
    total = with_prompt + with_reference
    means: NDArray[np.float64] = np.zeros_like(total)
    np.divide(2 * with_prompt * with_reference, total, out=means, where=total > 0)
    return means


def logit(cosine: Numbers, logit_scale: float = LOGIT_SCALE) -> NDArray[np.float64]:
    """logit_scale · cosine, as the model is trained on. cosine: any axes."""
    return positive("logit_scale", logit_scale) * finite("cosine", cosine)


def probability(cosine: Numbers, distractors: Numbers, logit_scale: float = LOGIT_SCALE) -> NDArray[np.float64]:
    """Probability of the own prompt among distractors: softmax of the logits.

    cosine: (N,) with the own prompt.   distractors: (N, M) with M other prompts.   Returns (N,), each above 0 to 1;
    comparable between prompts, but only for the same distractors. Raises ShapeError for other axes.
    """
    own = vector("cosine", cosine)
    others = matrix("distractors", distractors)
    if len(others) != len(own):
        raise ShapeError(f"distractors: the shape is {others.shape}; expected ({len(own)}, M)")
    return softmax(logit(np.column_stack([own, others]), logit_scale))[:, 0]


def iqa(positive_cosine: Numbers, negative_cosine: Numbers, logit_scale: float = LOGIT_SCALE) -> NDArray[np.float64]:
    """Probability of the positive prompt of a pair such as `Good photo.` / `Bad photo.` (CLIP-IQA, Wang et al. 2023).

    Both (N,) cosines with the pair's prompts. Returns (N,) from 0 to 1.
    """
    good = vector("positive_cosine", positive_cosine)
    return probability(good, vector("negative_cosine", negative_cosine, len(good))[:, None], logit_scale)


def pick(cosine: Numbers, prompts: Sequence[Hashable], logit_scale: float = LOGIT_SCALE) -> NDArray[np.float64]:
    """Probability that a picture is the one picked of its prompt's: softmax over the pictures (PickScore, 2023).

    cosine: (N,), each with its own prompt.   prompts: N keys.   Returns (N,) which sum to 1 within each prompt.
    """
    values = logit(vector("cosine", cosine), logit_scale)
    result = np.empty_like(values)
    for rows in groups_of(prompts, len(values)):
        result[rows] = softmax(values[rows])
    return result


def margin(cosine: Numbers, negative_cosine: Numbers, weight: float = NEGATIVE_WEIGHT) -> NDArray[np.float64]:
    """cosine − weight · max(cosine with the negative prompt, 0): an unlike negative prompt earns nothing.

    Both (N,). Returns (N,).
    """
    own = vector("cosine", cosine)
    negative = vector("negative_cosine", negative_cosine, len(own))
    return own - not_negative("weight", weight) * np.maximum(negative, 0.0)


def _scale(
    name: str, formula: str, low: float | None, high: float | None, needs: tuple[str, ...], source: str
) -> tuple[str, Scale]:
    return name, Scale(
        name=name, formula=formula, low=low, high=high, higher_is_better=True, needs=needs, source=source
    )


_PROMPT = ("prompt",)
SCALES: dict[str, Scale] = dict(
    (
        _scale("cosine", "cosine(image, prompt)", -1, 1, _PROMPT, "Radford et al. 2021"),
        _scale("clipscore", "2.5 · max(cosine, 0)", 0, 2.5, _PROMPT, "Hessel et al. 2021"),
        _scale(
            "refclipscore",
            "harmonic mean of clipscore and max(cosine to a reference, 0)",
            0,
            10 / 7,
            ("prompt", "references"),
            "Hessel et al. 2021",
        ),
        _scale("logit", "logit_scale · cosine (+ logit_bias)", None, None, _PROMPT, "Radford et al. 2021"),
        _scale(
            "probability",
            "softmax(logit_scale · cosine) of the own prompt among distractors",
            0,
            1,
            ("prompt", "distractor prompts"),
            "Radford et al. 2021",
        ),
        _scale(
            "iqa",
            "softmax(logit_scale · cosine) of a positive against a negative prompt",
            0,
            1,
            ("pair of prompts",),
            "Wang et al. 2023, CLIP-IQA",
        ),
        _scale(
            "pick",
            "softmax(logit_scale · cosine) over the prompt's pictures",
            0,
            1,
            ("prompt", "all its pictures"),
            "Kirstain et al. 2023, PickScore",
        ),
        _scale(
            "margin",
            "cosine − 0.5 · max(cosine to the negative prompt, 0)",
            -1.5,
            1,
            ("prompt", "negative prompt"),
            "clipcond",
        ),
        _scale("aesthetic", "weight · image + bias", None, None, ("aesthetic head",), "Schuhmann et al. 2022, LAION"),
        _scale("z", "(score − mean) / population deviation, within the prompt", None, None, ("another scale",), "–"),
        _scale("percentile", "share of the prompt's pictures below, ties half, in %", 0, 100, ("another scale",), "–"),
    )
)


def scale(name: str) -> Scale:
    """The scale of that name. Raises ConfigError, naming the nearest, if there is none."""
    if name not in SCALES:
        near = get_close_matches(name, SCALES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(SCALES)}"
        raise ConfigError(f"no scale {name!r}; {hint}")
    return SCALES[name]
