"""Ids against both libraries, and spans, on real prompts and on made-up text."""

from __future__ import annotations

import csv
import json
from itertools import count, repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import ConfigError, ResourceMissing
from clipcond.prompt import tokenizer as module
from clipcond.prompt.tokenizer import (
    VOCABULARY,
    batch_ids,
    count_tokens,
    rows_beyond,
    token_ids,
    token_rows,
    tokenize,
    typed_special_tokens,
)

_DATA = Path(__file__).parents[3] / "shared" / "data"
_NORMALISATIONS = ("transformers", "openai")

needs_data = pytest.mark.skipif(not _DATA.is_dir(), reason=f"no test data at {_DATA}")

# what people type and paste, and what breaks tokenizers
_PIECES = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(max_codepoint=0x17F), max_size=12),
    st.text(st.characters(categories=["Mn", "Ll", "Lu"]), max_size=8),
    st.text(st.characters(categories=["Cc", "Cf", "Zs"]), max_size=4),
    st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), max_size=6),
    st.text(st.characters(min_codepoint=0x1F300, max_codepoint=0x1FAFF), max_size=4),
    st.text(st.characters(min_codepoint=0x1100, max_codepoint=0x11FF), max_size=4),
    st.sampled_from(
        [" ", "\n", "fox", "İ", "ΑΣ", "'S", "'ſ", "don't", "&amp;", "&lt;b&gt;", "&amp;amp;", "schÃ¶n", "â€œq”", "ﬁ",
         "e\u0301", "ＦＯＸ", "\x1b[31m", "👩🏽‍🚀", "\u200b", "\r\n", "…", "<i>", "\x85", "\x1c", "1234", "!!!", "_"]
    ),
)  # fmt: skip
_TEXT = st.lists(_PIECES, max_size=8).map("".join).filter(lambda text: not typed_special_tokens(text))


@pytest.fixture(scope="module")
def transformers_ids():
    from clipcond.runtime.torchvision_repair import repair

    repair()
    from transformers import CLIPTokenizer

    if not (folder := _DATA / "tokenizers" / "sd15" / "tokenizer").is_dir():
        pytest.skip(f"no tokenizer files at {folder}")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=10**6)
    return lambda texts: tokenizer(texts, add_special_tokens=False).input_ids


@pytest.fixture(scope="module")
def open_clip_ids():
    from clipcond.runtime.torchvision_repair import repair

    repair()
    import open_clip

    tokenizer = open_clip.get_tokenizer("ViT-L-14")
    return lambda texts: [tokenizer.encode(text) for text in texts]


def real_prompts() -> list[str]:
    prompts = (_DATA / "prompts" / "diffusiondb-466.txt").read_text("utf-8").split("\n")
    for path in sorted((_DATA / "prompts" / "t2i-compbench").glob("*.txt")):
        prompts += path.read_text("utf-8").split("\n")
    for line in (_DATA / "prompts" / "geneval.jsonl").read_text("utf-8").splitlines():
        prompts.append(json.loads(line)["prompt"])
    with (_DATA / "prompts" / "parti.tsv").open(encoding="utf-8", newline="") as file:
        prompts += [row["Prompt"] for row in csv.DictReader(file, delimiter="\t")]
    return prompts


@needs_data
def test_real_prompts_as_transformers(transformers_ids) -> None:
    prompts = real_prompts()
    assert len(prompts) > 9000
    assert batch_ids(prompts, "transformers") == transformers_ids(prompts)


@needs_data
def test_real_prompts_as_open_clip(open_clip_ids) -> None:
    prompts = real_prompts()
    assert batch_ids(prompts, "openai") == open_clip_ids(prompts)


@needs_data
def test_real_prompts_have_spans() -> None:
    for prompt in real_prompts()[::7]:
        for normalisation in _NORMALISATIONS:
            check_spans(prompt, normalisation)


@pytest.mark.property
@given(text=_TEXT)
def test_made_up_text_as_transformers(transformers_ids, text: str) -> None:
    assert [token_ids(text, "transformers")] == transformers_ids([text])


@pytest.mark.property
@given(text=_TEXT)
def test_made_up_text_as_open_clip(open_clip_ids, text: str) -> None:
    assert [token_ids(text, "openai")] == open_clip_ids([text])


@pytest.mark.property
@pytest.mark.parametrize("normalisation", _NORMALISATIONS)
@given(text=st.one_of(_TEXT, st.text(st.characters(codec=None), max_size=20)))
def test_spans_of_made_up_text(normalisation, text: str) -> None:
    check_spans(text, normalisation)


def check_spans(text: str, normalisation) -> None:
    tokens = tokenize(text, normalisation)
    assert [token.id for token in tokens] == token_ids(text, normalisation)
    last = (0, 0)
    for token in tokens:
        assert last[0] <= token.start < token.end <= len(text)
        assert last[1] <= token.end
        assert token.text == text[token.start : token.end] != ""
        assert 0 <= token.id < VOCABULARY - 2
        last = (token.start, token.end)


@pytest.mark.parametrize("normalisation", _NORMALISATIONS)
@pytest.mark.parametrize(
    "typed",
    ["<|endoftext|>", "<|startoftext|>", "<|ENDOFTEXT|>", "<start_of_text>", "<end_of_text>", "&lt;end_of_text>"],
)
def test_a_typed_special_token_is_text(normalisation, typed: str) -> None:
    ids = token_ids(f"a {typed} fox", normalisation)
    assert max(ids) < VOCABULARY - 2
    assert ids[0] == 320
    assert ids[-1] == 3240
    assert len(ids) > 4


def test_special_tokens_are_found() -> None:
    assert typed_special_tokens("a <|endoftext|> <START_OF_TEXT>") == ((2, 15), (16, 31))
    assert typed_special_tokens("an <|endoftext and more") == ()


def test_known_tokens() -> None:
    tokens = tokenize("A  red Astronaut,")
    assert [token.piece for token in tokens] == ["a</w>", "red</w>", "astronaut</w>", ",</w>"]
    assert [token.id for token in tokens] == [320, 736, 18376, 267]
    assert [(token.start, token.end) for token in tokens] == [(0, 1), (3, 6), (7, 16), (16, 17)]


@pytest.mark.parametrize(
    ("text", "normalisation", "texts"),
    [
        ("caf\u0065\u0301 x", "transformers", ["cafe\u0301", "x"]),
        ("한 x", "transformers", ["한", "한", "x"]),
        ("\u1112\u1161\u11ab x", "transformers", ["\u1112\u1161\u11ab", "\u1112\u1161\u11ab", "x"]),
        ("a &lt; b", "openai", ["a", "&lt;", "b"]),
        ("a &amp;amp; b", "openai", ["a", "&amp;amp;", "b"]),
        ("schÃ¶n da", "openai", ["sch", "Ã¶", "n", "da"]),
        ("“q”", "openai", ["“", "q", "”"]),
        ("\ufeff fox", "openai", ["fox"]),
        ("\ud83d\ude00 x", "openai", ["\ud83d\ude00", "x"]),
    ],
)
def test_spans_reach_the_typed_text(text: str, normalisation, texts: list[str]) -> None:
    assert [token.text for token in tokenize(text, normalisation)] == texts


@pytest.mark.parametrize("normalisation", _NORMALISATIONS)
@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_nothing_typed_is_no_token(normalisation, text: str) -> None:
    assert tokenize(text, normalisation) == ()
    assert token_ids(text, normalisation) == []


def test_an_empty_batch_is_empty() -> None:
    assert batch_ids([], "openai") == batch_ids([], "transformers") == []


@pytest.mark.parametrize("normalisation", _NORMALISATIONS)
def test_half_a_surrogate_pair_is_one_broken_character(normalisation) -> None:
    broken, replaced = tokenize("a \udcff fox", normalisation), tokenize("a \ufffd fox", normalisation)
    assert [token.id for token in broken] == [token.id for token in replaced]
    assert broken[1].text == "\udcff"


@pytest.mark.parametrize("function", [tokenize, token_ids])
def test_an_unknown_normalisation_is_named(function) -> None:
    with pytest.raises(ConfigError, match=r"unknown normalisation 'clip'; there are transformers, openai"):
        function("a fox", "clip")


def test_a_missing_vocabulary_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ResourceMissing, match=r"bpe_simple_vocab_16e6.txt.gz is missing; pip install open_clip_torch"):
        module.vocabulary_file()


@pytest.mark.property
@pytest.mark.parametrize("normalisation", _NORMALISATIONS)
@given(text=_TEXT)
def test_the_first_texts_do_without_the_whole_model(normalisation, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_one_offs", count())
        narrow = tokenize(text, normalisation)
        patch.setattr(module, "_one_offs", count(module._FEW))
        assert tokenize(text, normalisation) == narrow
    assert [token.id for token in narrow] == token_ids(text, normalisation)


@needs_data
def test_the_narrow_model_on_real_prompts(monkeypatch) -> None:
    prompts = real_prompts()[::200]
    monkeypatch.setattr(module, "_one_offs", repeat(0))
    assert [[token.id for token in tokenize(prompt)] for prompt in prompts] == batch_ids(prompts)


def test_counts_are_the_lengths_of_the_ids() -> None:
    texts = ["a fox", "", "  a  Fox ", "a 🦊", "x" * 100]
    assert count_tokens(texts) == [len(token_ids(text)) for text in texts]
    assert count_tokens(["caf&eacute;"], "openai") == [len(token_ids("café", "openai"))]


@pytest.mark.parametrize("normalisation", _NORMALISATIONS)
def test_what_is_remembered_changes_nothing(normalisation, monkeypatch) -> None:
    """Pieces that were seen before, that were not, and a memory that overflows all the time."""
    texts = [
        "a Fox, & an owl",
        "a fox,",
        "\x00fox",
        "fox\tfox \n fox",
        "Kelvin \u212a",
        "&amp; &",
        "x" * 60,
        "ﬁ e\u0301",
        " ",
    ]
    fresh = [[token.id for token in tokenize(text, normalisation)] for text in texts]
    assert batch_ids(texts, normalisation) == fresh
    assert batch_ids(texts, normalisation) == fresh
    monkeypatch.setattr(module, "_MOST_KNOWN", 2)
    assert batch_ids(texts, normalisation) == fresh
    assert batch_ids(texts[::-1], normalisation) == fresh[::-1]
    assert [[token.id for token in tokenize(text, normalisation)] for text in texts] == fresh
    assert all(len(known) <= 2 for known in module._known_ids.values() if known is module._known_ids[normalisation])


def test_rows_are_the_tokens() -> None:
    for text in ("A red  Fox!", "a 🦊", "a\tfox", ""):
        assert token_rows(text) == [(token.id, token.piece, token.start, token.end) for token in tokenize(text)]


def test_the_memory_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(module, "_MOST_KNOWN", 100)
    batch_ids([f"fox{number} owl{number}" for number in range(500)])
    for number in range(300):
        tokenize(f"fox{number} owl{number}")
    batch_ids(["fox"])
    assert len(module._known_ids["transformers"]) <= 100
    assert len(module._known_rows) <= 100
    assert token_ids("fox1 owl1") == [token.id for token in tokenize("fox1 owl1")]


def test_an_entity_or_a_control_character_is_repaired_whatever_was_seen_before() -> None:
    assert token_ids("&", "openai") == token_ids("&amp;", "openai")
    assert token_ids("a&lt;b", "openai") == token_ids("a<b", "openai")
    assert token_ids("fo\x08x", "openai") == token_ids("fox", "openai")
    assert token_ids("&amp;lt; &lt;", "openai") == token_ids("< <", "openai")


@pytest.mark.property
@given(st.text(max_size=80) | st.text(alphabet="ab ,!", max_size=80), st.integers(0, 20))
def test_rows_beyond_a_limit_are_the_last_of_all_rows(text: str, limit: int) -> None:
    assert rows_beyond(text, limit) == token_rows(text)[limit:]
    assert rows_beyond(text, limit) == token_rows(text)[limit:]  # seen before
