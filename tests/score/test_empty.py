"""Nothing to score is a normal result: a filter that no picture passes must not raise further on."""

from __future__ import annotations

from collections.abc import Callable, Sized

import numpy as np
import pytest

from clipcond.score.aesthetic import aesthetic_head
from clipcond.score.duplicates import near_duplicates
from clipcond.score.expression import parse_expression
from clipcond.score.normalise import percentiles, z_scores
from clipcond.score.scales import clipscore, iqa, logit, margin, pick, probability, refclipscore
from clipcond.score.ties import tied_ranks
from clipcond.score.zero_shot import class_probabilities, top_k

NONE = np.zeros(0)
HEAD = aesthetic_head("head", {"weight": np.ones((1, 4)), "bias": np.zeros(1)})


@pytest.mark.parametrize(
    "scored",
    [
        lambda: clipscore(NONE),
        lambda: logit(NONE),
        lambda: refclipscore(NONE, np.zeros((0, 2))),
        lambda: probability(NONE, np.zeros((0, 3))),
        lambda: iqa(NONE, NONE),
        lambda: pick(NONE, []),
        lambda: margin(NONE, NONE),
        lambda: z_scores(NONE, []),
        lambda: percentiles(NONE, []),
        lambda: HEAD.scores(np.zeros((0, 4)), tower="x"),
        lambda: parse_expression("a").evaluate({"a": NONE}, []),
        lambda: class_probabilities(np.zeros((0, 2)), np.eye(2)),
        lambda: top_k(np.zeros((0, 2)), 1).columns,
        lambda: near_duplicates(np.zeros((0, 2))),
        lambda: tied_ranks(NONE, []).order,
    ],
)
def test_no_pictures_give_no_scores(scored: Callable[[], Sized]) -> None:
    assert len(scored()) == 0
