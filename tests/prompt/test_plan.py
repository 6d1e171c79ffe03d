from __future__ import annotations

import json
import pickle
import re
from itertools import chain
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import clipcond
from clipcond.errors import ConfigError
from clipcond.prompt.dialects.translate import translate
from clipcond.prompt.layout import apart_rows
from clipcond.prompt.plan import DIALECTS, FAMILIES, Dialect, Family, plan
from clipcond.prompt.tokenizer import BOS, CONTENT, CONTEXT, EOS, token_ids, token_rows


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
@given(text=st.text(max_size=400), family=st.sampled_from(list(FAMILIES)))
def test_no_token_is_lost_or_moved(text: str, family: str) -> None:
    for encoder in plan(text, family=family).encoders.values():
        if encoder.unknown:
            continue
        planned = [token for chunk in encoder.chunks for token in chunk.tokens]
        marked = "!" in text and FAMILIES[family][encoder.name].pads_apart
        assert [token.id for token in planned] == ([row[0] for row in apart_rows(text)] if marked else token_ids(text))
        assert all(token.weight == 1.0 for token in planned)
        assert all(len(chunk.tokens) == encoder.limit for chunk in encoder.chunks[:-1])
        assert all(len(row) == encoder.limit + 2 and row[0] == BOS and EOS in row for row in encoder.ids())


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
    assert tuple(FAMILIES)[: len(get_args(Family))] == get_args(Family)
    assert get_args(Dialect) == DIALECTS


def test_an_unknown_family_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"unknown family 'sd9'; there are sd15, sd2, sdxl, sd3, flux"):
        plan("a fox", family="sd9")


def test_an_unknown_dialect_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"unknown dialect 'tongue'; there are plain, a1111, comfy, compel"):
        plan("a fox", dialect="tongue")


def tokens_of(prompt: str, **options) -> list[tuple[str, float]]:
    chunks = plan(prompt, **options).encoders["clip_l"].chunks
    return [(token.text, round(token.weight, 4)) for chunk in chunks for token in chunk.tokens]


@pytest.mark.parametrize(
    ("dialect", "prompt", "expected"),
    [
        ("a1111", "a (red:1.3) fox", [("a", 1.0), ("red", 1.3), ("fox", 1.0)]),
        ("a1111", r"(fox \(x\):1.2)", [("fox", 1.2), (r"\(", 1.2), ("x", 1.2), (r"\)", 1.2)]),
        ("a1111", r"a\(b", [("a", 1.0), (r"\(", 1.0), ("b", 1.0)]),
        ("a1111", r"a\( b\)", [("a", 1.0), (r"\(", 1.0), ("b", 1.0), (r"\)", 1.0)]),
        ("a1111", "a <lora:x:0.8> fox", [("a", 1.0), ("fox", 1.0)]),
        ("a1111", "[a fox:an owl:0.5] [x|y]", [("a", 1.0), ("fox", 1.0), ("x", 1.0)]),
        ("comfy", "((a:1.2) b:1.3)", [("a", 1.2), ("b", 1.3)]),
        ("compel", "a cat++ dog-", [("a", 1.0), ("cat", 1.21), ("dog", 0.9)]),
        ("compel", "cat.swap(dog)", [("cat", 1.0)]),
        ("plain", "a (red:1)", [("a", 1.0), ("(", 1.0), ("red", 1.0), (":", 1.0), ("1", 1.0), (")", 1.0)]),
    ],
)  # fmt: skip
def test_each_dialect_gives_words_and_weights(dialect: str, prompt: str, expected: list[tuple[str, float]]) -> None:
    assert tokens_of(prompt, dialect=dialect) == expected


def test_words_of_different_weight_are_tokenised_apart() -> None:
    (chunk,) = plan("fo(x:1.3)", dialect="a1111").encoders["clip_l"].chunks
    assert [(token.piece, token.start, token.end) for token in chunk.tokens] == [("fo</w>", 0, 2), ("x</w>", 3, 4)]


def test_what_and_composes_is_in_parts() -> None:
    chunks = plan("a fox :1.2 AND an owl AND", dialect="a1111").encoders["clip_l"].chunks
    found = [(chunk.part, len(chunk.tokens), chunk.cut) for chunk in chunks]
    assert found == [(0, 2, "break"), (1, 2, "break"), (2, 0, "end")]  # an empty part takes its share
    assert [chunk.part for chunk in plan('("a", "b").and()', dialect="compel").encoders["clip_l"].chunks] == [0, 1]
    assert [chunk.part for chunk in plan("a fox", dialect="compel").encoders["clip_l"].chunks] == [0]


def test_a_stock_pipeline_reads_the_marks_as_text() -> None:
    prompt = "(" + words(73) + ":1.2), owl"
    encoder = plan(prompt, dialect="a1111").encoders["clip_l"]
    assert encoder.content_tokens == 75
    assert [chunk.cut for chunk in encoder.chunks] == ["end"]
    assert encoder.truncated
    assert encoder.dropped is not None
    assert encoder.dropped.content_tokens == len(token_ids(prompt)) - 75
    assert encoder.dropped.text == prompt[encoder.dropped.start :] == "1.2), owl"


def test_both_encoders_of_a_family_give_one_warning() -> None:
    codes = [found.code for found in plan(words(74) + " artgerm", family="sdxl").warnings]
    assert codes == ["word-split"]


@pytest.mark.property
@given(
    text=st.lists(
        st.sampled_from(["fox ", "(", ")", "[", "]", ":1.2)", "\\", "\\(", " BREAK ", " AND ", "++", "-", '"', ").and(", ",",
                         "<lora:a:1>", "owl", "é", "e\u0301", "\ud800", "🦊", ":0.5]", "|", "\n", "  "]) | st.text(max_size=6),
        max_size=40,
    ).map("".join),
    dialect=st.sampled_from(DIALECTS),
    family=st.sampled_from(["sd15", "sdxl"]),
)  # fmt: skip
def test_any_prompt_is_planned_with_spans_inside_it(text: str, dialect: str, family: str) -> None:
    planned = plan(text, dialect=dialect, family=family, embeddings={"owl": 3})
    for encoder in planned.encoders.values():
        tokens = [token for chunk in encoder.chunks for token in chunk.tokens]
        assert encoder.content_tokens == len(tokens)
        assert all(text[token.start : token.end] == token.text != "" for token in tokens)
        assert [token.start for token in tokens] == sorted(token.start for token in tokens)
        assert all(len(row) == CONTEXT for row in encoder.ids())
        assert encoder.truncated is (len(token_ids(text)) > CONTENT)
    assert all(0 <= found.start <= found.end <= len(text) for found in planned.warnings)
    assert planned == plan(text, dialect=dialect, family=family, embeddings={"owl": 3})
    json.dumps(planned.to_json())


def test_a_very_long_prompt_takes_linear_time() -> None:
    from time import perf_counter

    for dialect in DIALECTS:
        began = perf_counter()
        plan("(a fox:1.1), [b] " * 5_000, dialect=dialect)
        assert perf_counter() - began < 15


def test_a_plan_keeps_what_encoding_needs() -> None:
    found = plan("a cat AND a dog :0.5 <lora:x:0.4>", dialect="a1111")
    assert [(part.how, part.weight) for part in found.parts] == [("noise", 1.0), ("noise", 0.5)]
    assert [(each.name, each.weight) for each in found.adapters] == [("x", 0.4)]
    found = plan("(cat)0.5 (dog)0.5 bird", dialect="compel")
    assert [chunk.segments for chunk in found.encoders["clip_l"].chunks] == [(0, 2, 3)]
    assert plan("cat").parts == plan("cat").encoders["clip_l"].chunks[0].segments == ()
    found = plan('("a cat", "").blend(1, 0.5)', dialect="compel")
    assert [(chunk.part, len(chunk.tokens)) for chunk in found.encoders["clip_l"].chunks] == [(0, 2), (1, 0)]


# all code points


def shapes() -> dict[tuple[tuple[int, int, bool], ...], str]:
    """Every different way in which one code point before a comma becomes tokens, and the first code point of each."""
    found: dict[tuple[tuple[int, int, bool], ...], str] = {}
    codes = chain(range(0x40000), range(0x40000, 0xE0000, 977), range(0xE0000, 0xE1000), range(0xE1000, 0x110000, 977))
    points = [chr(code) for code in codes if not chr(code).isspace()]  # planes without any character: every 977th
    rows = token_rows(" ".join(f"{point}," for point in points))
    at = 0
    for number, point in enumerate(points):
        start, tokens = 3 * number, []
        while at < len(rows) and rows[at][2] < start + 2:
            tokens.append((rows[at][2] - start, rows[at][3] - start, rows[at][1].endswith("</w>")))
            at += 1
        found.setdefault(tuple(tokens), point)
    return found


@pytest.mark.property
def test_no_code_point_at_any_chunk_border_raises() -> None:
    found = shapes()
    assert len(found) > 5
    assert "İ" in found.values()  # the first whose two tokens share a character
    for point in [*found.values(), "\ud800", "\udfff"]:
        for ahead in range(70, 77):
            for dialect in DIALECTS:
                planned = plan("a " * ahead + f"{point},", dialect=dialect, family="sdxl")
                for warning in planned.warnings:
                    assert 0 <= warning.start < warning.end <= len(planned.prompt)


def test_a_border_between_two_tokens_of_one_character_cuts_its_word() -> None:
    prompt = "a " * 73 + "İ,"
    (warning,) = plan(prompt).warnings
    assert (warning.code, prompt[warning.start : warning.end]) == ("word-split", "İ,")


@pytest.mark.property
@given(text=st.text(st.characters(), max_size=120), dialect=st.sampled_from(DIALECTS), ahead=st.integers(60, 80))
def test_any_text_of_any_code_points_is_planned(text: str, dialect: str, ahead: int) -> None:
    planned = plan("a " * ahead + text, dialect=dialect, family="sdxl")
    broken = re.search("[\ud800-\udfff]", text) is not None
    assert ("broken-unicode" in {warning.code for warning in planned.warnings}) is broken


@pytest.mark.parametrize("dialect", DIALECTS)
def test_half_of_a_surrogate_pair_is_read_as_a_replacement_character_and_said(dialect: str) -> None:
    planned = plan("a \ud83d fox", dialect=dialect)
    assert planned.encoders["clip_l"].ids() == plan("a \ufffd fox").encoders["clip_l"].ids()
    assert [(warning.code, warning.start, warning.end) for warning in planned.warnings] == [("broken-unicode", 2, 3)]
    assert translate("a \ud83d fox", dialect, "plain").text.split() == ["a", "\ufffd", "fox"]


def test_a_plan_shows_itself_in_a_notebook() -> None:
    shown = plan("a <b> fox " * 30)._repr_html_()
    assert "a &lt;b&gt; fox" in shown
    assert "clip_l" in shown
    assert shown.count("<td") == 5
