"""Plans for the encoders of a loaded pipeline, where they differ from what is usual in their family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.prompt.families import FAMILIES
from clipcond.prompt.layout import apart_rows
from clipcond.prompt.plan import plan
from clipcond.prompt.tokenizer import token_ids, token_rows

SDXL = FAMILIES["sdxl"]
MERGED = {**SDXL, "clip_g": replace(SDXL["clip_g"], pads_apart=False)}
TOKENIZERS = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"


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
    planned = plan(prompt, family="sdxl", dialect=dialect)
    (usual,), (apart,) = (planned.encoders[name].chunks for name in ("clip_l", "clip_g"))
    assert [token.id for token in usual.tokens] == token_ids(prompt)
    wow, cat, mark = token_ids("wow"), token_ids("a cat"), token_ids("?")
    assert [token.id for token in apart.tokens] == [*wow, 0, 0, 0, *cat, 0, *mark]
    assert [token.text for token in apart.tokens] == ["wow", "!", "!", "!", "a", "cat", "!", "?"]
    assert [prompt[token.start : token.end] for token in apart.tokens] == [token.text for token in apart.tokens]


def test_open_clips_own_tokenizer_merges_marks_as_an_option() -> None:
    planned = plan("wow!!!", family="sdxl", encoders=MERGED)
    left, right = (planned.encoders[name].chunks[0].tokens for name in ("clip_l", "clip_g"))
    assert left == right


@pytest.mark.parametrize(
    ("family", "counts"),
    [("sd15", {"clip_l": 3}), ("sd2", {"clip_h": 5}), ("sdxl", {"clip_l": 3, "clip_g": 5})],
)
def test_exclamation_marks_count_as_the_second_tokenizers_read_them(family: str, counts: dict[str, int]) -> None:
    planned = plan("a cat!!!", family=family)
    assert {name: encoder.content_tokens for name, encoder in planned.encoders.items()} == counts


@pytest.mark.parametrize("family", ["sd2", "sdxl", "sd3"])
def test_ninety_marks_are_truncated_where_they_are_not_merged(family: str) -> None:
    assert plan("wow! " * 30 + "!" * 30, family=family).truncated
    assert not plan("wow! " * 30 + "!" * 30, family="sd15").truncated


@pytest.mark.skipif(not TOKENIZERS.is_dir(), reason=f"no tokenizers of the pipelines at {TOKENIZERS}")
@pytest.mark.parametrize("family", ["sdxl", "sd3"])
@pytest.mark.parametrize(
    "prompt",
    [
        "a cat!!!",
        "!",
        "?!?!",
        "don't! 's!re",
        "n'!t",
        "e\u0301!\u0301",
        "İ!x",
        " !\u00a0! ",
        "«!»",
        "a!\n!b",
        "！!",
        "!" * 30,
    ],
)
def test_ids_are_those_of_the_pipelines_own_tokenizers(family: str, prompt: str) -> None:
    from transformers import CLIPTokenizer

    for name, folder in (("clip_l", "tokenizer"), ("clip_g", "tokenizer_2")):
        theirs = CLIPTokenizer.from_pretrained(TOKENIZERS / family / folder)(prompt, add_special_tokens=False).input_ids
        assert [token.id for token in plan(prompt, family=family).encoders[name].chunks[0].tokens] == theirs


def test_marks_count_for_what_a_stock_pipeline_drops() -> None:
    planned = plan("!" * 76, family="sdxl")
    assert planned.encoders["clip_l"].truncated is False
    dropped = planned.encoders["clip_g"].dropped
    assert dropped is not None
    assert (dropped.text, dropped.start, len(planned.encoders["clip_g"].chunks)) == ("!", 75, 2)


def test_weights_stay_with_their_marks() -> None:
    planned = plan("a (cat!:1.5)", family="sdxl", dialect="a1111")
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
