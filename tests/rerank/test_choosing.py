"""Which pictures are kept, and in which order."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from clipcond.errors import OptionsError
from clipcond.rerank.choosing import Scored, choose
from clipcond.rerank.rows import RankedImage
from clipcond.rerank.settings import Selection, parse_threshold


def scored(scores: dict[str, float], prompts: dict[str, str] | None = None, angles: dict[str, float] | None = None,
           **facts: dict[str, int]) -> Scored:  # fmt: skip
    rows = [
        RankedImage(
            path=Path(name), score=value, scores={"cosine": value}, prompt=(prompts or {}).get(name, "x"),
            width=facts.get("width", {}).get(name, 10), height=10,
        )
        for name, value in scores.items()
    ]  # fmt: skip
    turn = np.radians([(angles or {}).get(name, 90 * n) for n, name in enumerate(scores)])
    vectors = np.column_stack([np.cos(turn), np.sin(turn)]).astype(np.float32)
    return Scored(rows=rows, vectors=vectors, modified=[0.0] * len(rows), noise=1e-6, several=False)


def names(rows: list[RankedImage], *, kept: bool = False) -> str:
    return "".join(str(row.path) for row in rows if row.kept or not kept)


def test_the_order_does_not_depend_on_that_of_the_rows() -> None:
    scores = {"a": 0.1, "b": 0.3, "c": 0.3, "d": 0.2}
    for order in itertools.permutations(scores):
        rows = choose(scored({name: scores[name] for name in order}), Selection())
        assert names(rows) == "bcda"


def test_scores_within_the_noise_are_ties() -> None:
    rows = choose(scored({"a": 0.3, "b": 0.3000005, "c": 0.2}), Selection())
    assert [(str(row.path), row.tied) for row in rows] == [("b", True), ("a", True), ("c", False)]


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        (Selection(top=2), "ba"),
        (Selection(top_percent=25), "b"),
        (Selection(top_percent=26), "ba"),
        (Selection(top=1, top_percent=100), "b"),
        (Selection(thresholds=(parse_threshold("0.2"),)), "bac"),
        (Selection(thresholds=(parse_threshold("cosine>0.2"), parse_threshold("cosine<0.35"))), "a"),
        (Selection(top=9), "bacd"),
        (Selection(thresholds=(parse_threshold("score>=1"),)), ""),
    ],
)
def test_selection(selection: Selection, kept: str) -> None:
    rows = choose(scored({"a": 0.3, "b": 0.4, "c": 0.2, "d": 0.1}), selection)
    assert names(rows, kept=True) == kept
    assert [row.rank for row in rows] == [1, 2, 3, 4]


def test_the_best_of_each_prompt() -> None:
    given = scored({"a": 0.3, "b": 0.4, "c": 0.2, "d": 0.1}, {"a": "x", "b": "y", "c": "x", "d": "y"})
    rows = choose(given, Selection(top=1, per_prompt=True))
    assert names(rows) == "acbd"
    assert names(rows, kept=True) == "ab"
    assert [row.rank for row in rows] == [1, 2, 1, 2]


def test_of_near_duplicates_the_best_is_kept_and_the_others_named() -> None:
    given = scored({"a": 0.3, "b": 0.4, "c": 0.2, "d": 0.1}, angles={"a": 0, "b": 10, "c": 90, "d": 200})
    rows = choose(given, Selection(duplicates=0.94))
    assert [(str(row.path), row.group, row.kept) for row in rows] == [
        ("b", 1, True), ("c", None, True), ("d", None, True), ("a", 1, False)
    ]  # fmt: skip


def test_of_equal_duplicates_the_larger_is_kept() -> None:
    given = scored({"a": 0.3, "b": 0.3}, angles={"a": 0, "b": 1}, width={"a": 5, "b": 50})
    assert names(choose(given, Selection(duplicates=0.94)), kept=True) == "b"


def test_a_top_counts_what_duplicates_leave() -> None:
    given = scored({"a": 0.5, "b": 0.4, "c": 0.2}, angles={"a": 0, "b": 5, "c": 90})
    assert names(choose(given, Selection(top=2, duplicates=0.94)), kept=True) == "ac"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_percent": 0}, "top_percent is 0"),
        ({"top_percent": 101}, "top_percent is 101"),
        ({"duplicates": 2}, "duplicates is 2"),
        ({"top": 0}, "top is 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, float], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        Selection(**settings)  # type: ignore[arg-type]
