"""Where chunks end: the vectors of the peers, the rules of each policy, and what holds for all of them."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.prompt.chunking import COMMA, FULL_STOP, POLICIES, Slot, phrase, split
from clipcond.prompt.plan import CHUNKING, CHUNKINGS, EmbeddingToken, EncoderPlan, plan
from clipcond.prompt.tokenizer import tokenize

VECTORS = Path(__file__).parents[1] / "vectors" / "chunks.json"
REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "vectors" / "chunks.json"
OF_PIECES = "artgerm"  # art, ger, m
DIALECTS = {"A1111": "a1111", "ComfyUI": "comfy", "compel": "plain"}


def vectors(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["vectors"]


def typed(runs: list) -> str:
    """The prompt of a vector."""
    words = []
    for what, times in runs:
        if isinstance(what, list):
            word = typed(what)
        elif what.startswith("group:"):
            count = int(what[6:])
            word = f"({OF_PIECES if count == 3 else ' '.join(['owl'] * count)}:1.2)"
        else:
            word = {"w": "fox", "3-piece word": OF_PIECES}.get(what, "tix" if what.startswith("TI:") else what)
        words += [word] * times
    return " ".join(words)


def planned(vector: dict) -> EncoderPlan:
    mode = vector.get("settings", {}).get("split_mode")
    return plan(
        typed(vector["runs"]),
        dialect=DIALECTS[vector["peer"]],
        family="sdxl",
        chunking={"SENTENCES": "compel-sentences", "PHRASES": "compel-phrases", "WORDS": "word"}.get(mode),
        embeddings={"tix": 4} if "TI:4" in str(vector["runs"]) else None,
    ).encoders["clip_l"]


def measured(key: str, encoder: EncoderPlan) -> object:
    """What a plan says about one of the things that a vector expects."""
    sizes = [len(chunk.tokens) for chunk in encoder.chunks]
    match key:
        case "chunks":
            return len(sizes)
        case "count":
            last = sizes[-1] if encoder.chunks[-1].cut == "end" else 75  # a BREAK fills its chunk up
            return 75 * (len(sizes) - 1) + last
        case "content_sizes":
            return sizes
        case "cut":
            return encoder.chunks[0].cut
        case "second_chunk_first_token_index" | "first_chunk_content":
            return sizes[0]
        case "first_chunk_empty":
            return sizes[0] == 0
        case "cut_inside_word":
            return not encoder.chunks[0].tokens[-1].piece.endswith("</w>")
    raise AssertionError(f"a vector expects {key}, which this test does not know")


@pytest.mark.parametrize("vector", vectors(VECTORS), ids=lambda vector: f"{vector['peer']} {vector['prompt']}")
def test_the_vectors_of_the_peers(vector: dict) -> None:
    encoder, expected = planned(vector), vector["expected"]
    if "tail_pad" in expected:
        both = plan("a cat", dialect="comfy", family="sdxl").encoders
        assert {name: each.ids()[0][4:] for name, each in both.items()} == {
            name: [pad] * 73 for name, pad in expected["tail_pad"].items()
        }
    elif "wanted" in vector:  # the peer moves the placeholders without their vectors
        places = [
            [1 + at for at, token in enumerate(chunk.tokens) if isinstance(token, EmbeddingToken)]
            for chunk in encoder.chunks
        ]
        assert places == [[], vector["wanted"]["positions"]]
    else:
        assert {key: measured(key, encoder) for key in expected} == expected


@pytest.mark.skipif(not REFERENCE.is_file(), reason=f"no reference vectors at {REFERENCE}")
def test_our_copy_of_the_vectors_is_complete() -> None:
    original = [{key: value for key, value in vector.items() if key != "note"} for vector in vectors(REFERENCE)]
    assert vectors(VECTORS) == original


def test_the_words_of_these_tests_have_the_tokens_that_they_stand_for() -> None:
    assert [len(tokenize(word)) for word in ("fox", "owl", ",", ".", OF_PIECES)] == [1, 1, 1, 1, 3]


def sizes(prompt: str, **options) -> list[int]:
    return [len(chunk.tokens) for chunk in plan(prompt, **options).encoders["clip_l"].chunks]


def cuts(prompt: str, **options) -> list[str]:
    return [chunk.cut for chunk in plan(prompt, **options).encoders["clip_l"].chunks]


FOX = " ".join(["fox"] * 74)


@pytest.mark.parametrize(
    ("chunking", "first"), [("hard", 75), ("a1111", 75), ("word", 74), ("phrase", 74), ("comfy", 75)]
)
def test_a_word_over_the_border(chunking: str, first: int) -> None:
    prompt = f"{FOX} {OF_PIECES} fox"
    assert sizes(prompt, chunking=chunking) == [first, 78 - first]
    warnings = plan(prompt, chunking=chunking, family="sdxl").warnings
    split_words = [(found.message, prompt[found.start : found.end]) for found in warnings if found.code == "word-split"]
    assert split_words == ([("a chunk ends inside 'artgerm'", "artgerm")] if first == 75 else [])


def test_a_word_that_fills_a_chunk_is_cut() -> None:
    assert sizes("x" * 600, chunking="word")[0] == 75
    assert "word-split" in [found.code for found in plan("x" * 600, chunking="word").warnings]


def test_padding_is_what_a_backtrack_costs() -> None:
    prompt = " ".join(["fox"] * 60) + " , " + FOX
    chunks = plan(prompt, chunking="a1111").encoders["clip_l"].chunks
    assert [(chunk.cut, chunk.padding) for chunk in chunks] == [("backtrack", 14), ("end", 1)]


def test_no_backtrack_before_a_comma() -> None:
    assert sizes(" ".join([*["fox"] * 60, ",", *["fox"] * 14, ",", "fox"]), chunking="a1111") == [75, 2]


@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_break_works_under_every_policy(chunking: str) -> None:
    prompt = f"(a BREAK {FOX} fox fox:1.2) BREAK b BREAK"
    assert sizes(prompt, dialect="a1111", chunking=chunking)[0] == 1
    found = cuts(prompt, dialect="a1111", chunking=chunking)
    assert found[0] == found[-1] == "break"
    assert found.count("break") == 3


def test_two_breaks_leave_an_empty_chunk_between() -> None:
    assert sizes("a BREAK BREAK b", dialect="a1111") == [1, 0, 1]
    assert sizes("BREAK", dialect="a1111") == [0]


def test_a_phrase_stays_whole_where_it_fits() -> None:
    text = " ".join(["fox"] * 70)
    prompt = f"{text} (a red (old:1.1) owl in a nest:1.3) fox"
    assert sizes(prompt, dialect="a1111", chunking="phrase") == [70, 8]
    assert sizes(prompt, dialect="a1111", chunking="word") == [75, 3]
    assert sizes(f"{text} ({FOX} fox fox:1.3)", dialect="a1111", chunking="phrase") == [75, 71]


def test_phrase_by_itself_and_within_split_agree() -> None:
    slots = [Slot(1)] * 70 + [Slot(1, group=0)] * 10
    assert phrase(slots, 0, 75) == 70
    assert split(slots, "phrase") == [(0, 70), (70, 80)]


@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_the_vectors_of_an_embedding_stay_together(chunking: str) -> None:
    prompt = " ".join(["fox"] * 73) + " tix fox"
    planned = plan(prompt, chunking=chunking, embeddings={"tix": 4})
    chunks = planned.encoders["clip_l"].chunks
    assert [len(chunk.tokens) for chunk in chunks] == [73, 5]
    assert chunks[0].cut == "backtrack"
    assert planned.warnings == ()


def test_an_embedding_that_fits_no_chunk_is_cut_and_said() -> None:
    planned = plan("a tix", embeddings={"tix": 80})
    assert [len(chunk.tokens) for chunk in planned.encoders["clip_l"].chunks] == [1, 75, 5]
    (found,) = planned.warnings
    assert (found.code, found.start, found.end) == ("embedding-split", 2, 5)


def test_each_dialect_has_its_own_chunking() -> None:
    text = f"{FOX} {OF_PIECES} fox"
    for dialect, chunking in CHUNKING.items():
        assert plan(text, dialect=dialect) == plan(text, dialect=dialect, chunking=chunking)
    assert sizes(text, dialect="compel") == [74, 4]
    assert sizes(text, dialect="comfy") == [75, 3]


def test_an_unknown_policy_names_those_that_exist() -> None:
    known = "hard, a1111, word, phrase, comfy, compel-sentences, compel-phrases"
    with pytest.raises(ConfigError, match=f"unknown chunking 'soft'; there are {known}"):
        plan("a fox", chunking="soft")
    with pytest.raises(ConfigError, match="unknown chunking 'soft'"):
        split([], "soft")


@st.composite
def layouts(draw) -> list[Slot]:
    """Slots as a prompt gives them: groups of one weight with words in them, embeddings, commas."""
    slots: list[Slot] = []
    for number, (kind, length) in enumerate(
        draw(
            st.lists(
                st.tuples(st.sampled_from(["text", "group", "unit", "comma", "stop"]), st.integers(1, 90)), max_size=12
            )
        )
    ):
        match kind:
            case "text" | "group":
                group = number if kind == "group" else -1
                ends = [at % 3 != 0 for at in range(length)]
                slots += [Slot(1000, end or at == length - 1, number, group) for at, end in enumerate(ends)]
            case "unit":
                slots += [Slot(0, True, number, -1, number)] * length
            case _:
                slots.append(Slot(COMMA if kind == "comma" else FULL_STOP, True, number))
    return slots


@pytest.mark.property
@given(slots=layouts(), chunking=st.sampled_from(CHUNKINGS))
def test_chunks_tile_the_slots_and_keep_what_they_promise(slots: list[Slot], chunking: str) -> None:
    spans = split(slots, chunking)
    assert [place for start, end in spans for place in range(start, end)] == list(range(len(slots)))
    assert all(end - start <= 75 for start, end in spans)
    assert all(end > start for start, end in spans) or spans == [(0, 0)]
    for (start, end), _ in pairwise(spans):
        before, after = slots[end - 1], slots[end]
        if before.unit >= 0 and before.unit == after.unit:
            assert sum(slot.unit == after.unit for slot in slots) > 75
        if chunking in ("word", "phrase") and end - start < 75:
            assert before.ends_word
        if chunking == "phrase" and before.group >= 0 and before.group == after.group:
            assert sum(slot.group == after.group for slot in slots) > 75


@pytest.mark.parametrize("chunking", list(POLICIES))
def test_chunking_takes_linear_time(chunking: str) -> None:
    slots = [Slot(1, at % 5 == 0, at // 3, at // 3) for at in range(100_000)]
    began = time.process_time()
    split(slots, chunking)
    assert time.process_time() - began < 5


def test_the_examples_of_the_guide_are_true(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import doctest

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    guide = Path(__file__).parents[2] / "docs" / "prompt-language-chunking.md"
    failed, tried = doctest.testfile(str(guide), module_relative=False, encoding="utf-8")
    assert tried > 5
    assert failed == 0
