"""Plans for the encoders of a loaded pipeline, where they differ from what is usual in their family."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.prompt.families import FAMILIES
from clipcond.prompt.layout import apart_rows
from clipcond.prompt.plan import plan
from clipcond.prompt.tokenizer import token_ids, token_rows

SDXL = FAMILIES["sdxl"]
APART = {**SDXL, "clip_g": replace(SDXL["clip_g"], pads_apart=True)}


def test_fewer_encoders_are_planned() -> None:
    planned = plan("a fox", family="sdxl", encoders={"clip_g": SDXL["clip_g"]})
    assert list(planned.encoders) == ["clip_g"]
    assert planned.family == "sdxl"


def test_the_pad_id_is_that_of_the_pipeline() -> None:
    other = {"clip_l": replace(FAMILIES["sd15"]["clip_l"], pad_id=7)}
    assert plan("a fox", encoders=other).encoders["clip_l"].ids()[0][-1] == 7


@pytest.mark.parametrize("dialect", ["plain", "a1111"])
def test_every_exclamation_mark_may_be_a_token_of_its_own(dialect: str) -> None:
    prompt = "wow!!! a cat!?"
    planned = plan(prompt, family="sdxl", encoders=APART, dialect=dialect)
    (usual,), (apart,) = (planned.encoders[name].chunks for name in ("clip_l", "clip_g"))
    assert [token.id for token in usual.tokens] == token_ids(prompt)
    wow, cat, mark = token_ids("wow"), token_ids("a cat"), token_ids("?")
    assert [token.id for token in apart.tokens] == [*wow, 0, 0, 0, *cat, 0, *mark]
    assert [token.text for token in apart.tokens] == ["wow", "!", "!", "!", "a", "cat", "!", "?"]
    assert [prompt[token.start : token.end] for token in apart.tokens] == [token.text for token in apart.tokens]


def test_marks_count_for_what_a_stock_pipeline_drops() -> None:
    planned = plan("!" * 76, family="sdxl", encoders=APART)
    assert planned.encoders["clip_l"].truncated is False
    dropped = planned.encoders["clip_g"].dropped
    assert dropped is not None
    assert (dropped.text, dropped.start, len(planned.encoders["clip_g"].chunks)) == ("!", 75, 2)


def test_weights_stay_with_their_marks() -> None:
    planned = plan("a (cat!:1.5)", family="sdxl", encoders=APART, dialect="a1111")
    found = [(token.text, token.weight) for token in planned.encoders["clip_g"].chunks[0].tokens]
    assert found == [("a", 1.0), ("cat", 1.5), ("!", 1.5)]


@pytest.mark.property
@given(st.text(max_size=40))
def test_without_the_mark_nothing_is_different(text: str) -> None:
    text = text.replace("!", "")
    assert apart_rows(text) == token_rows(text)


@pytest.mark.property
@given(st.text(alphabet="ab !?,\n", max_size=40))
def test_each_mark_is_one_row_at_its_place(text: str) -> None:
    rows = apart_rows(text)
    assert [start for number, _, start, _ in rows if number == 0] == [at for at, mark in enumerate(text) if mark == "!"]
    assert all(end == start + 1 for number, _, start, end in rows if number == 0)
    assert rows == sorted(rows, key=lambda row: row[2])


def test_an_embedding_that_nothing_knows_is_said_once() -> None:
    planned = plan("a embedding:nosuch fox", dialect="comfy", embeddings={"other": 1})
    assert [found.code for found in planned.warnings] == ["unknown-embedding"]
