"""Agreement with people: the rules for ties, recall and filter, invariances."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.score.agreement import (
    agreement,
    best_threshold,
    filter_at_k,
    pair_credit,
    recall_at_k,
    threshold_credit,
)
from clipcond.score.statistics import bootstrap_mean

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5), st.sampled_from("pqr")), min_size=1, max_size=20)


def test_a_tie_of_either_side_counts_half() -> None:
    assert pair_credit([1, -1, 0, 1, 0], [2, 2, 2, 0, 0]).tolist() == [1, 0, 0.5, 0.5, 0.5]


def test_pickscores_rule_by_hand() -> None:
    gaps = [0.02, 0.001, -0.02, 0.001, 0.02]
    credit = threshold_credit(gaps, [1, 0, 1, 1, 0], threshold=0.1, logit_scale=100)
    assert credit.tolist() == [1, 1, 0, 0.5, 0.5]


def test_the_threshold_is_on_the_difference_of_probabilities() -> None:
    """Cosines .30 and .28 at scale 100: p = .8808 and .1192, .7616 apart."""
    for threshold, expected in ((0.761, 1.0), (0.762, 0.5)):
        assert threshold_credit([0.02], [1], threshold=threshold, logit_scale=100)[0] == expected


def test_the_best_threshold_is_the_least_of_the_best() -> None:
    assert best_threshold([1.0, -2.0], [1, -1]) == 0
    gaps, said = [0.1, -0.1, 2.0, -2.0], [0, 0, 1, -1]
    assert best_threshold(gaps, said) == pytest.approx(0.05)  # tanh(.05) = .04996
    with pytest.raises(ConfigError, match="score_gaps: there is none; a threshold is tuned on one pair or more"):
        best_threshold([], [])


def test_recall_and_filter_at_k() -> None:
    scores, ratings, prompts = [3, 2, 1, 9, 8], [1, 3, 2, 2, 1], list("aaabb")
    assert recall_at_k(scores, ratings, prompts, 1).tolist() == [0, 1]
    assert recall_at_k(scores, ratings, prompts, 2).tolist() == [1, 1]
    assert filter_at_k(scores, ratings, prompts, 1).tolist() == [0, 1]
    assert filter_at_k(scores, ratings, prompts, 3).tolist() == [1, 1]


def test_a_constant_score_finds_k_of_n_and_no_more() -> None:
    assert recall_at_k([0.3] * 8, range(8), ["a"] * 8, 2).tolist() == [0.25]
    assert filter_at_k([0.3] * 8, range(8), ["a"] * 8, 4).tolist() == [0.5]


def test_ties_share_their_places_as_drawing_lots_would() -> None:
    scores, ratings = [5, 4, 4, 4, 1], [1, 9, 2, 3, 4]
    lots = [
        1 in sorted(range(5), key=lambda row: (-scores[row], lot[row]))[:3] for lot in itertools.permutations(range(5))
    ]
    assert recall_at_k(scores, ratings, "aaaaa", 3)[0] == pytest.approx(np.mean(lots))


def test_of_several_best_the_one_scored_highest_counts() -> None:
    assert recall_at_k([3, 2, 1], [5, 1, 5], "aaa", 1).tolist() == [1]
    assert recall_at_k([3, 2, 1], [1, 5, 5], "aaa", 2).tolist() == [1]


def test_the_summary_of_a_perfect_a_reversed_and_a_constant_score() -> None:
    ratings, prompts = [1, 2, 3, 4, 4, 3, 2, 1], list("aaaabbbb")
    for scores, accuracy, correlation, recall in (
        (ratings, 1, 1, 1),
        ([-rating for rating in ratings], 0, -1, 0),
        ([7] * 8, 0.5, 0, 0.25),
    ):
        result = agreement(scores, ratings, prompts)
        assert result.pair_accuracy.value == accuracy
        assert (result.spearman.value, result.kendall.value) == pytest.approx((correlation, correlation))
        assert result.recall_at[1].value == result.filter_at[1].value == recall
        assert (result.prompts, result.pairs) == (2, 12)


def test_a_perfect_score_reaches_1_on_keeps_and_deletes_where_people_decide() -> None:
    result = agreement([4, 3, 2, 1], [1, 1, 0, 0], "aaaa")
    assert result.preference_accuracy.value == 1
    assert result.pair_accuracy.value == (4 + 0.5 + 0.5) / 6
    assert agreement([7, 7, 7, 7], [1, 1, 0, 0], "aaaa").preference_accuracy.value == 0.5


def test_prompts_without_a_preference_say_nothing() -> None:
    result = agreement([1, 2, 3, 4, 9], [1, 2, 5, 5, 3], list("aabbc"))
    assert (result.prompts, result.pairs, result.pair_accuracy.value) == (1, 1, 1)
    with pytest.raises(ConfigError, match="no prompt has two pictures that are rated differently"):
        agreement([1, 2], [3, 3], "aa")


def test_pair_accuracy_is_the_share_of_all_pairs_by_the_half_rule() -> None:
    noise = np.random.default_rng(0)
    scores, ratings = noise.integers(0, 4, 30).astype(float), noise.integers(1, 6, 30).astype(float)
    prompts = [0] * 4 + [1] * 6 + [2] * 20
    pairs = np.array([pair for pair in itertools.combinations(range(30), 2) if prompts[pair[0]] == prompts[pair[1]]])
    gaps, said = (column[pairs[:, 0]] - column[pairs[:, 1]] for column in (scores, ratings))
    credit, clusters = pair_credit(gaps, said), [prompts[row] for row in pairs[:, 0]]
    measured = agreement(scores, ratings, prompts)
    assert measured.pair_accuracy == bootstrap_mean(credit, clusters)
    assert (measured.pair_accuracy.value, measured.pairs) == (credit.mean(), len(pairs))


@given(ROWS, st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_neither_the_order_of_rows_nor_a_growing_scale_matters(
    rows: list[tuple[int, int, str]], shuffled: random.Random
) -> None:
    def measured(given: list[tuple[int, int, str]], stretch: float) -> object:
        scores, ratings, prompts = zip(*given, strict=True)
        try:
            return agreement([stretch * score for score in scores], ratings, prompts)
        except ConfigError as error:
            return str(error)

    moved = list(rows)
    shuffled.shuffle(moved)
    assert measured(moved, 1) == measured(rows, 1) == measured(rows, 1024)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="k is 0; expected 1 or more"):
        recall_at_k([1], [1], "a", 0)
    with pytest.raises(ConfigError, match=r"threshold is 2; expected a difference of probabilities from 0 to 1"):
        threshold_credit([1], [1], threshold=2)
    with pytest.raises(ConfigError, match="scores: number 1 of 1 is nan"):
        agreement([float("nan")], [1], "a")
