"""Named scales: the published formulas by number, ranges, refusals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clipcond.errors import ConfigError, ShapeError
from clipcond.score import scales
from clipcond.score.scales import SCALES, clipscore, iqa, logit, margin, pick, probability, refclipscore, scale

COSINES = st.lists(st.floats(-1, 1), min_size=1, max_size=12)


def test_clipscore_clamps_before_any_mean() -> None:
    assert clipscore([0.30, -0.05]).tolist() == pytest.approx([0.75, 0])
    percent = clipscore([0.30, -0.05]) / 2.5 * 100
    assert percent.mean() == pytest.approx(15.0)  # 12.5 if averaged before clamping


def test_refclipscore_is_the_harmonic_mean_with_the_best_reference() -> None:
    assert refclipscore([0.30], [[0.2, 0.80, -0.3]])[0] == pytest.approx(0.774194, abs=5e-7)


@pytest.mark.parametrize(("cosine", "reference"), [(-0.1, 0.8), (0.3, -0.2), (0.0, 0.0), (-0.5, -0.5)])
def test_refclipscore_is_0_where_either_side_is(cosine: float, reference: float) -> None:
    assert refclipscore([cosine], [[reference]]).tolist() == [0.0]


def test_pick_is_the_softmax_over_the_prompts_own_pictures() -> None:
    together = pick([0.30, 0.10, 0.28, 0.25], ["a", "b", "a", "a"], 100)
    assert together == pytest.approx([0.875601, 1.0, 0.118500, 0.005900], abs=5e-7)


def test_iqa_of_a_pair() -> None:
    assert iqa([0.26], [0.24])[0] == pytest.approx(0.880797, abs=5e-7)


@pytest.mark.parametrize(("cosine", "expected"), [(0.30, 0.995526), (0.26, 0.802957)])
def test_probability_among_99_distractors(cosine: float, expected: float) -> None:
    assert probability([cosine], np.full((1, 99), 0.20))[0] == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(("cosine", "negative", "expected"), [(0.30, 0.22, 0.19), (0.30, -0.10, 0.30)])
def test_margin_against_the_negative_prompt(cosine: float, negative: float, expected: float) -> None:
    assert margin([cosine], [negative], 0.5)[0] == pytest.approx(expected)


def test_logit_is_the_scale_times_the_cosine() -> None:
    assert logit([[0.25, -0.5]], 100).tolist() == [[25.0, -50.0]]


@given(COSINES, st.floats(0.01, 10_000))
def test_probabilities_of_a_prompts_pictures_sum_to_one_and_keep_the_order(cosines: list[float], size: float) -> None:
    chances = pick(cosines, ["a"] * len(cosines), size)
    assert chances.sum() == pytest.approx(1)
    assert (np.diff(chances[np.argsort(cosines, kind="stable")]) >= 0).all()


@given(COSINES)
def test_a_score_does_not_depend_on_the_rows_beside_it(cosines: list[float]) -> None:
    together = np.array(cosines)
    for scored in (
        clipscore,
        logit,
        lambda c: margin(c, np.flip(c)[::-1]),
        lambda c: iqa(c, -c),
        lambda c: refclipscore(c, c[:, None]),
    ):
        assert (
            np.concatenate([scored(together[row : row + 1]) for row in range(len(together))]).tolist()
            == scored(together).tolist()
        )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "scored",
    [
        clipscore,
        logit,
        lambda c: refclipscore(c, [[0.1], [0.2]]),
        lambda c: refclipscore([0.1, 0.2], np.array(c)[:, None]),
        lambda c: probability(c, [[0.1], [0.2]]),
        lambda c: iqa([0.1, 0.2], c),
        lambda c: pick(c, ["a", "a"]),
        lambda c: margin([0.1, 0.2], c),
    ],
)
def test_no_scale_takes_nan_or_infinity(scored: Callable[..., NDArray[np.float64]], bad: float) -> None:
    with pytest.raises(ConfigError, match=r"^\w+: number 2 of 2 is (nan|-?inf); expected finite numbers$"):
        scored([0.1, bad])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: logit([0.1], 0), "logit_scale is 0; expected a finite number above 0"),
        (lambda: margin([0.1], [0.1], -1), "weight is -1; expected a finite number of 0 or more"),
        (lambda: margin([0.1], [0.1, 0.2]), r"negative_cosine: the shape is \(2,\); expected \(1,\)"),
        (lambda: pick([0.1], ["a", "b"]), "prompts: there are 2; expected 1, one for each row"),
        (
            lambda: refclipscore([0.1], np.zeros((1, 0))),
            r"references: the shape is \(1, 0\); expected \(1, 1 or more\)",
        ),
        (lambda: probability([0.1, 0.2], [[0.1]]), r"distractors: the shape is \(1, 1\); expected \(2, M\)"),
        (lambda: clipscore(["a"]), "cosine: not an array of numbers"),
        (lambda: scale("clip_score"), "no scale 'clip_score'; did you mean clipscore?"),
        (lambda: scale("novel"), "no scale 'novel'; expected one of cosine, clipscore,"),
    ],
)
def test_refusals_are_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises((ConfigError, ShapeError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_registry_names_each_scale_once_and_fits_its_function() -> None:
    assert all(name == entry.name and entry.formula and entry.needs for name, entry in SCALES.items())
    functions = {name for name in SCALES if callable(getattr(scales, name, None))}
    assert functions == set(SCALES) - {"cosine", "aesthetic", "z", "percentile"}
    assert scale("refclipscore").high == pytest.approx(refclipscore([1.0], [[1.0]])[0])
    assert scale("clipscore").high == clipscore([1.0])[0]
    assert scale("margin").low == margin([-1.0], [1.0])[0]
