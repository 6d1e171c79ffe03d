from __future__ import annotations

import json
import pickle
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clipcond
from clipcond.errors import ConfigError
from clipcond.prompt.plan import DIALECTS, FAMILIES, Dialect, Family, plan
from clipcond.prompt.tokenizer import BOS, CONTENT, CONTEXT, EOS, token_ids


def words(count: int) -> str:
    return " ".join(["fox"] * count)


@pytest.mark.parametrize(
    ("count", "sizes", "cuts"),
    [
        (0, [0], ["end"]),
        (1, [1], ["end"]),
        (75, [75], ["end"]),
        (76, [75, 1], ["full", "end"]),
        (150, [75, 75], ["full", "end"]),
        (151, [75, 75, 1], ["full", "full", "end"]),
    ],
)
def test_chunks_hold_75(count: int, sizes: list[int], cuts: list[str]) -> None:
    encoder = plan(words(count)).encoders["clip_l"]
    assert [len(chunk.tokens) for chunk in encoder.chunks] == sizes
    assert [chunk.cut for chunk in encoder.chunks] == cuts
    assert [chunk.index for chunk in encoder.chunks] == list(range(len(sizes)))
    assert encoder.content_tokens == count
    assert encoder.truncated is (count > 75)


@pytest.mark.parametrize(
    ("family", "pads"),
    [("sd15", {"clip_l": 49407}), ("sd2", {"clip_h": 0}), ("sdxl", {"clip_l": 49407, "clip_g": 0})],
)
def test_each_family_pads_its_own_way(family: str, pads: dict[str, int]) -> None:
    planned = plan("a fox", family=family)
    assert {name: encoder.pad_id for name, encoder in planned.encoders.items()} == pads
    for name, pad in pads.items():
        assert planned.encoders[name].ids() == [[BOS, 320, 3240, EOS] + [pad] * 73]


def test_a_full_chunk_has_no_padding() -> None:
    chunk = plan(words(75)).encoders["clip_l"].chunks[0]
    assert chunk.ids(7) == [BOS, *[3240] * 75, EOS]


def test_what_a_stock_pipeline_drops() -> None:
    prompt = words(75) + ",  and a «key» . "
    dropped = plan(prompt).encoders["clip_l"].dropped
    assert dropped is not None
    assert dropped.text == ",  and a «key» ." == prompt[dropped.start : dropped.end]
    assert dropped.content_tokens == len(token_ids(dropped.text))
    assert plan(words(75)).encoders["clip_l"].dropped is None


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=400), family=st.sampled_from(list(FAMILIES)))
def test_no_token_is_lost_or_moved(text: str, family: str) -> None:
    for encoder in plan(text, family=family).encoders.values():
        if encoder.unknown:
            continue
        planned = [token for chunk in encoder.chunks for token in chunk.tokens]
        assert [token.id for token in planned] == token_ids(text)
        assert all(token.weight == 1.0 for token in planned)
        assert all(len(chunk.tokens) == CONTENT for chunk in encoder.chunks[:-1])
        assert all(len(row) == CONTEXT and row[0] == BOS and EOS in row for row in encoder.ids())


def test_json_has_the_agreed_form() -> None:
    document = plan(words(76), family="sd15").to_json()
    assert list(document) == ["prompt", "dialect", "family", "encoders", "warnings"]
    (encoder,) = document["encoders"]  # type: ignore[misc]
    assert list(encoder) == ["name", "limit", "content_tokens", "truncated", "dropped", "chunks"]
    assert encoder["dropped"] == {"text": "fox", "start": 300, "end": 303, "content_tokens": 1}
    assert encoder["chunks"][1] == {
        "index": 1,
        "content_tokens": 1,
        "cut": "end",
        "tokens": [{"id": 3240, "piece": "fox</w>", "text": "fox", "start": 300, "end": 303, "weight": 1.0}],
    }
    assert json.loads(json.dumps(document)) == document
    assert plan("a fox").to_json()["encoders"][0]["dropped"] is None  # type: ignore[index]


def test_a_plan_pickles() -> None:
    planned = plan("a <|endoftext|> fox", family="sdxl")
    assert pickle.loads(pickle.dumps(planned)) == planned


def test_the_facade_offers_it() -> None:
    assert clipcond.plan("a fox") == plan("a fox")


def test_the_names_of_families_and_dialects_are_stated_once() -> None:
    assert tuple(FAMILIES) == get_args(Family)
    assert get_args(Dialect) == DIALECTS


def test_an_unknown_family_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"unknown family 'sd9'; there are sd15, sd2, sdxl, sd3, flux"):
        plan("a fox", family="sd9")


def test_an_unknown_dialect_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"unknown dialect 'tongue'; there are plain, a1111, comfy, compel"):
        plan("a fox", dialect="tongue")
