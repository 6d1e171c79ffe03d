"""Collections of prompts in numbers."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.prompt.analysis import collection
from clipcond.prompt.analysis.collection import Bin, CommonPhrase, LongPrompt, SplitWord, survey
from clipcond.prompt.tokenizer import token_ids

FOX = "fox " * 80


def test_lengths() -> None:
    found = survey(["a fox", "", "a red fox", "a fox", FOX, "fox " * 160])
    assert (found.prompts, found.empty, found.distinct) == (6, 1, 5)
    assert (found.tokens, found.mean) == (247, 247 / 6)
    assert (found.limit, found.over, found.over_two, found.lost_tokens) == (75, 2, 1, 90)
    assert found.over_share == 1 / 3
    assert (found.shortest, found.median, found.p90, found.p99, found.longest) == (0, 2, 160, 160, 160)


def test_nothing_is_a_collection() -> None:
    found = survey([])
    assert (found.prompts, found.mean, found.over_share, found.histogram) == (0, 0.0, 0.0, ())


def test_the_longest_prompts_and_their_lines(monkeypatch) -> None:
    monkeypatch.setattr(collection, "_BATCH", 2)
    found = survey(["a", "a fox", "a red fox", "a", "a red fox too"], top=3)
    assert found.longest_prompts == (
        LongPrompt(line=5, tokens=4, prompt="a red fox too"),
        LongPrompt(line=3, tokens=3, prompt="a red fox"),
        LongPrompt(line=2, tokens=2, prompt="a fox"),
    )


def test_split_words_by_what_they_cost() -> None:
    found = survey(["rutkowski, Rutkowski fox", "llanfairpwllgwyngyll", "x" * 61])
    assert found.split_words == (
        SplitWord(word="llanfairpwllgwyngyll", tokens=8, count=1),
        SplitWord(word="rutkowski", tokens=2, count=2),
    )


def test_common_phrases() -> None:
    found = survey(["A fox, in the snow", "a fox. in the snow!", "a fox | dawn", "dusk"])
    assert found.phrases == (CommonPhrase(phrase="a fox", count=3), CommonPhrase(phrase="in the snow", count=2))


def test_tables_that_grow_large_keep_what_is_common(monkeypatch) -> None:
    monkeypatch.setattr(collection, "_BATCH", 2)
    monkeypatch.setattr(collection, "_LARGE", 2)
    found = survey(["fox, fox", "dog", "bee", "cat", "fox", "owl"])
    assert found.phrases == (CommonPhrase(phrase="fox", count=3),)


def test_bins_keep_the_limit_between_them() -> None:
    lengths = [*range(0, 120), 400]
    found = survey("fox " * length for length in lengths)
    assert found.histogram[0] == Bin(first=0, last=5, prompts=6)
    assert found.histogram[-1] == Bin(first=121, last=400, prompts=1)
    assert 75 in {bar.last for bar in found.histogram}


def test_long_prompts_have_wide_bins() -> None:
    found = survey(["fox " * length for length in (5, 4000)])
    assert {bar.last % 75 for bar in found.histogram} == {0}
    assert len(found.histogram) <= 25


def test_the_json_holds_plain_values() -> None:
    found = survey(["a fox, a fox", FOX])
    document = json.loads(json.dumps(found.to_json()))
    assert document["prompts"] == 2
    assert document["over_limit"] == {"prompts": 1, "share": 0.5, "over_two_chunks": 0, "lost_content_tokens": 5}
    assert document["length"]["longest"] == 80
    assert document["phrases"] == [{"phrase": "a fox", "count": 2}]
    assert document["longest_prompts"][0] == {"line": 2, "content_tokens": 80, "prompt": FOX}


@pytest.mark.property
@given(st.lists(st.text("fox ,é漢\n\ud800.", max_size=60), max_size=12))
def test_every_prompt_is_counted_once(prompts: list[str]) -> None:
    found = survey(prompts)
    lengths = Counter(len(token_ids(prompt)) for prompt in prompts)
    assert found.prompts == len(prompts) == sum(bar.prompts for bar in found.histogram)
    assert found.tokens == sum(length * count for length, count in lengths.items())
    assert found.empty == lengths[0]
    for bar, after in zip(found.histogram, found.histogram[1:], strict=False):
        assert bar.last + 1 == after.first
    for bar in found.histogram:
        assert bar.prompts == sum(count for length, count in lengths.items() if bar.first <= length <= bar.last)
