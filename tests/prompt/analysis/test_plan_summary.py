"""Plans of one prompt in short: what a terminal and a page have in common."""

from __future__ import annotations

import pytest

from clipcond.prompt.analysis.plan_summary import all_warnings, cut_reason, encoder_groups, weighted_passages
from clipcond.prompt.plan import plan


def test_encoders_of_equal_chunks_are_one_group() -> None:
    plans = [plan("a red fox", family=family) for family in ("sd15", "sdxl")]
    assert [(label, len(encoders)) for label, encoders in encoder_groups(plans)] == [
        ("sd15, sdxl · clip_l; sdxl · clip_g", 3)
    ]


def test_a_warning_of_several_plans_is_given_once_and_in_order() -> None:
    prompt = "a <|endoftext|> fox " * 2
    plans = [plan(prompt, family=family) for family in ("sd15", "sdxl")]
    found = all_warnings(plans)
    assert found == sorted(plans[0].warnings, key=lambda each: each.start)
    assert found


@pytest.mark.parametrize(
    ("prompt", "reasons"),
    [
        ("a fox", [""]),
        ("a fox BREAK a bird", ["BREAK", ""]),
        ("a fox AND a bird", ["AND", ""]),
        ("fox " * 80, ["all places are taken", ""]),
    ],
)
def test_a_cut_has_its_reason(prompt: str, reasons: list[str]) -> None:
    chunks = plan(prompt, dialect="a1111").encoders["clip_l"].chunks
    assert [cut_reason(chunks, index) for index in range(len(chunks))] == reasons


def test_neighbours_of_one_weight_are_one_passage() -> None:
    prompt = "a (big red:1.3) fox (old:0.5)"
    encoder = plan(prompt, dialect="a1111").encoders["clip_l"]
    assert weighted_passages(prompt, encoder) == [("big red", 1.3), ("old", 0.5)]
