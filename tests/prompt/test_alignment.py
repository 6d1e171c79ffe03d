from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.prompt.alignment import align, identity, through


@pytest.mark.property
@given(old=st.text("ab &;é\n", min_size=1, max_size=30), new=st.text("abc é\n", max_size=30))
def test_spans_are_inside_and_never_step_back(old: str, new: str) -> None:
    spans = align(old, new)
    assert len(spans) == len(new)
    assert all(0 <= start < end <= len(old) for start, end in spans)
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(spans))


def test_the_same_text_is_the_identity() -> None:
    assert align("a fox", "a fox") == identity(5) == ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5))


def test_a_rewritten_passage_points_at_all_of_it() -> None:
    assert align("a &amp; b", "a & b") == ((0, 1), (1, 2), (2, 7), (7, 8), (8, 9))
    assert align("a \x1b[1mb", "a b") == ((0, 1), (1, 2), (2, 7))
    assert align("x &hearts; y", "x ♥ y") == ((0, 1), (1, 2), (2, 10), (10, 11), (11, 12))


def test_what_came_from_nowhere_points_at_its_neighbour() -> None:
    assert align("ab", "abc") == ((0, 1), (1, 2), (1, 2))
    assert align("b", "ab") == ((0, 1), (0, 1))
    assert align("", "") == ()


def test_text_cannot_come_from_nothing() -> None:
    with pytest.raises(ValueError, match="came from nothing"):
        align("", "a")


def test_two_steps_are_joined() -> None:
    assert through([(0, 2), (2, 3)], [(0, 1), (1, 5), (5, 6)]) == ((0, 5), (5, 6))


def test_long_text_that_shares_little_is_taken_whole_and_quickly() -> None:
    began = time.process_time()
    spans = align("é " * 20_000, "e " * 19_999)
    assert time.process_time() - began < 5
    assert spans[0] == spans[-1] == (0, 40_000)
