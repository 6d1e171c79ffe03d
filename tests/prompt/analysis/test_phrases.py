"""Phrases, their places, and what costs tokens or attention."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.prompt.analysis.phrases import LISTS, analyse, boilerplate
from clipcond.prompt.plan import PromptPlan, plan
from clipcond.resources import bundled


def codes(prompt: str) -> dict[str, str]:
    """The findings of a prompt: code -> the passage it marks."""
    return {found.code: prompt[found.start : found.end] for found in analyse(plan(prompt)).findings}


def messages(prompt: str) -> list[str]:
    return [found.message for found in analyse(plan(prompt)).findings]


def weighted(planned: PromptPlan, weight: float, start: int) -> PromptPlan:
    """The plan with a weight on all tokens from one on."""
    encoder = planned.encoders["clip_l"]
    number, chunks = 0, []
    for chunk in encoder.chunks:
        tokens = []
        for token in chunk.tokens:
            tokens.append(token._replace(weight=weight) if number >= start else token)
            number += 1
        chunks.append(replace(chunk, tokens=tuple(tokens)))
    return replace(planned, encoders={"clip_l": replace(encoder, chunks=tuple(chunks))})


def cut(planned: PromptPlan, sizes: list[int], reason: str) -> PromptPlan:
    """The plan with its tokens in chunks of these sizes, each but the last cut for that reason."""
    encoder = planned.encoders["clip_l"]
    tokens = [token for chunk in encoder.chunks for token in chunk.tokens]
    chunks = []
    for index, size in enumerate(sizes):
        last = index == len(sizes) - 1
        chunks.append(
            replace(encoder.chunks[0], index=index, tokens=tuple(tokens[:size]), cut="end" if last else reason)
        )
        tokens = tokens[size:]
    assert not tokens
    return replace(planned, encoders={"clip_l": replace(encoder, chunks=tuple(chunks))})


# phrases


def test_phrases_stand_between_commas() -> None:
    found = analyse(plan("a red fox, in the Snow; at 1,000 m.  dusk|dawn\nnoon, "))
    assert [(phrase.text, phrase.first, phrase.tokens) for phrase in found.phrases] == [
        ("a red fox", 0, 3),
        ("in the Snow", 4, 3),
        ("at 1,000 m", 8, 7),
        ("dusk", 16, 1),
        ("dawn", 18, 1),
        ("noon", 19, 1),
    ]
    assert found.content_tokens == 21


def test_a_decimal_point_and_an_abbreviation_end_no_phrase() -> None:
    assert [phrase.text for phrase in analyse(plan("f/1.8 lens, u.s. army")).phrases] == ["f/1.8 lens", "u.s", "army"]


def test_commas_of_other_scripts_count() -> None:
    assert [phrase.text for phrase in analyse(plan("狐、猫，犬")).phrases] == ["狐", "猫", "犬"]


def test_phrases_are_shown_with_their_brackets() -> None:
    planned = plan("(masterpiece:1.4), [blurry] a (red:1.3) fox, ((a dog))", dialect="a1111")
    assert [(phrase.text, phrase.tokens) for phrase in analyse(planned).phrases] == [
        ("(masterpiece:1.4)", 1),
        ("[blurry] a (red:1.3) fox", 4),
        ("((a dog))", 2),
    ]


def test_the_vectors_of_an_embedding_are_a_word() -> None:
    planned = plan("style8, a fox style8style8, style4", dialect="a1111", embeddings={"style8": 8, "style4": 8})
    found = analyse(planned)
    assert [(phrase.text, phrase.repeats) for phrase in found.phrases][-1] == ("style4", False)
    assert found.findings == ()


def test_an_empty_prompt_has_nothing() -> None:
    found = analyse(plan(""))
    assert (found.phrases, found.findings, found.boilerplate_share) == ((), (), 0.0)
    assert analyse(plan(" , ;")).phrases == ()


def test_the_weight_of_a_phrase_is_the_one_furthest_from_1() -> None:
    (phrase,) = analyse(weighted(plan("a red fox"), 0.5, 1)).phrases
    assert phrase.weight == 0.5


def test_an_encoder_can_be_named() -> None:
    planned = plan("a fox", family="sdxl")
    assert analyse(planned).encoder == "clip_l"
    assert analyse(planned, "clip_g").encoder == "clip_g"
    with pytest.raises(ConfigError, match="no encoder 't5' in this plan; there is clip_l, clip_g"):
        analyse(planned, "t5")


# findings


def test_a_good_prompt_has_no_findings() -> None:
    assert codes("a red fox in the snow, soft morning light, birch forest") == {}


def test_a_phrase_over_a_chunk_border() -> None:
    prompt = "fox, " * 36 + "an old house by the sea, dusk"  # 72 tokens, then six of which three fit
    found = analyse(plan(prompt))
    (split,) = (one for one in found.findings if one.code == "phrase-split")
    assert prompt[split.start : split.end] == "an old house by the sea"
    assert split.message == "split over chunks 1 and 2: 3 and 3 tokens that do not see each other"
    assert [phrase.chunks for phrase in found.phrases[-2:]] == [(0, 1), (1, 1)]


def test_a_phrase_that_fits_no_chunk() -> None:
    assert "80 tokens without a comma: the phrase fits no chunk" in messages("fox " * 80)[0]


def test_a_word_over_a_chunk_border_is_the_plans_to_tell() -> None:
    prompt = "fox " * 74 + "rutkowski"
    assert [found.code for found in plan(prompt).warnings] == ["word-split"]
    assert set(codes(prompt)) == {"phrase-split"}


def test_a_break_splits_nothing() -> None:
    found = analyse(cut(plan("a red fox in the snow"), [3, 3], "break"))
    assert [phrase.text for phrase in found.phrases] == ["a red fox", "in the snow"]
    assert found.findings == ()


def test_padding_wasted_by_a_backtrack() -> None:
    prompt = "a red fox, in the snow"
    found = analyse(cut(plan(prompt), [4, 3], "backtrack"))
    (wasted,) = found.findings
    assert (wasted.code, prompt[wasted.start : wasted.end]) == ("padding-wasted", ",")
    assert wasted.message == "chunk 1 ends at this comma, and 71 places are padding"
    assert found.wasted_places == 71
    full = analyse(cut(plan("fox, " * 37 + "a, dog"), [74, 3], "backtrack"))
    (message,) = (one.message for one in full.findings if one.code == "padding-wasted")
    assert "1 place is padding" in message


def test_rare_words_once_each() -> None:
    prompt = "llanfairpwllgwyngyll by Rutkowskistadtberg, llanfairpwllgwyngyll, rutkowski"
    rare = [found for found in analyse(plan(prompt)).findings if found.code == "rare-word"]
    assert [prompt[found.start : found.end] for found in rare] == ["llanfairpwllgwyngyll", "Rutkowskistadtberg"]
    assert rare[0].message == "takes 8 tokens: CLIP spells this word and hardly knows it"


def test_a_rare_script_counts_its_characters() -> None:
    assert messages("漢字狐") == ["takes 8 tokens for 3 characters: CLIP hardly knows it"]
    assert "rare-word" not in codes("?!?!{{{{....----++++")


def test_repeated_phrases_are_told_once_each() -> None:
    prompt = "a fox, snow, A  fox, a dog, a fox, snow, ..., ..."
    told = [found for found in analyse(plan(prompt)).findings if found.code == "repeated-phrase"]
    assert [(prompt[found.start : found.end], found.message) for found in told] == [
        ("A  fox", "said 3 times; the repetition takes 4 tokens"),
        ("snow", "said twice; the repetition takes 1 token"),
    ]
    assert [phrase.repeats for phrase in analyse(plan(prompt)).phrases[:3]] == [False, False, True]


def test_boilerplate_is_measured() -> None:
    prompt = "Masterpiece, best quality, 8K UHD, ultra-detailed, a fox"
    found = analyse(plan(prompt))
    assert [prompt[start:end] for start, end in found.boilerplate] == [
        "Masterpiece",
        "best quality",
        "8K UHD",
        "ultra-detailed",
    ]
    assert found.boilerplate_tokens == 10
    (told,) = found.findings
    assert told.code == "boilerplate"
    assert told.message == (
        "10 of 16 tokens (62%) go to habit, not to this picture: “masterpiece”, “best quality”, “8k uhd” …"
    )
    assert [phrase.boilerplate for phrase in found.phrases] == [True, True, True, True, False]


def test_some_words_are_boilerplate_only_on_their_own() -> None:
    assert analyse(plan("a detailed map")).boilerplate_tokens == 0
    assert analyse(plan("a map, detailed, dawn")).boilerplate_tokens == 1


def test_little_boilerplate_is_not_worth_a_word() -> None:
    assert codes("masterpiece, a fox") == {}
    assert "boilerplate" not in codes(
        "8k uhd, best quality, masterpiece, 4k, " + "a fox by the sea at dawn in may and " * 4
    )


def test_late_emphasis() -> None:
    prompt = "a fox and a dog, " * 16 + "a silver key"
    found = [one for one in analyse(weighted(plan(prompt), 1.3, 96)).findings if one.code == "late-emphasis"]
    assert [(prompt[one.start : one.end], one.message) for one in found] == [
        ("a silver key", "weighted 1.3, but starts at token 97; the first 75 weigh most")
    ]
    again = analyse(weighted(plan(prompt + ", a silver key"), 1.3, 96)).findings
    assert [one.code for one in again].count("late-emphasis") == 1
    early = analyse(weighted(plan("a fox"), 1.3, 0))
    assert early.findings == ()


def test_late_emphasis_underlines_only_what_is_weighted() -> None:
    prompt = "a fox and a dog, " * 16 + "a key of (pure silver:1.3) and gold"
    found = [one for one in analyse(plan(prompt, dialect="a1111")).findings if one.code == "late-emphasis"]
    assert [prompt[one.start : one.end] for one in found] == ["pure silver"]
    assert "starts at token 100" in found[0].message
    across = (
        "a fox and a dog, " * 14 + "a fox and (a dog) " + "and so on " * 3 + "with (a key)"
    )  # weighted in both chunks
    found = [one for one in analyse(plan(across, dialect="a1111")).findings if one.code == "late-emphasis"]
    assert [across[one.start : one.end] for one in found] == ["a dog"]


def test_the_lists_are_readable_and_say_nothing_twice() -> None:
    lines = [
        line.lower().removeprefix("=")
        for name in LISTS
        for line in bundled("prompts", f"analysis/{name}.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert len(lines) == len(set(lines)) == len(boilerplate()) > 100


# shape


def test_the_json_holds_plain_values() -> None:
    document = analyse(plan("best quality, a fox, a fox")).to_json()
    assert document == {
        "encoder": "clip_l",
        "content_tokens": 8,
        "boilerplate_tokens": 2,
        "boilerplate_share": 0.25,
        "wasted_places": 0,
        "phrases": [
            _phrase("best quality", 0, 12, 0, boilerplate=True),
            _phrase("a fox", 14, 19, 3),
            _phrase("a fox", 21, 26, 6, repeats=True),
        ],
        "findings": [
            {
                "code": "repeated-phrase",
                "message": "said twice; the repetition takes 2 tokens",
                "start": 21,
                "end": 26,
            }
        ],
    }


def _phrase(text: str, start: int, end: int, first: int, **marks: bool) -> dict[str, object]:
    return {
        "text": text,
        "start": start,
        "end": end,
        "first_token": first,
        "content_tokens": 2,
        "chunks": [0, 0],
        "weight": 1.0,
        "boilerplate": False,
        "repeats": False,
    } | marks


@pytest.mark.property
@given(st.text("ab ,.;|\n漢👩1-(:)BREAK" + "\u0301\ud800", max_size=300))
def test_every_prompt_can_be_analysed(prompt: str) -> None:
    for dialect in ("plain", "a1111", "comfy", "compel"):
        _check(prompt, plan(prompt, dialect=dialect))


def _check(prompt: str, planned: PromptPlan) -> None:
    found = analyse(planned)
    places = [place for phrase in found.phrases for place in (phrase.start, phrase.end)]
    assert places == sorted(places)
    assert all(prompt[phrase.start : phrase.end] == phrase.text != "" for phrase in found.phrases)
    assert all(0 <= one.start < one.end <= len(prompt) for one in found.findings)
    assert sum(phrase.tokens for phrase in found.phrases) <= found.content_tokens
    assert 0 <= found.boilerplate_share <= 1


def test_time_grows_with_the_length_only() -> None:
    seconds = []
    for times in (1000, 8000):
        planned = plan("a red fox, best quality, in the snow, " * times)
        seconds.append(min(_seconds(planned) for _ in range(3)))
    assert seconds[1] < 40 * seconds[0]  # 64 times if it were quadratic


def _seconds(planned: PromptPlan) -> float:
    started = time.perf_counter()
    analyse(planned)
    return time.perf_counter() - started
