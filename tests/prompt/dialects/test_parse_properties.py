"""What holds for every text in every dialect. `pytest -m property --hypothesis-profile=thorough` tries 2,000 texts each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from reference_readers import compels_parser

from clipcond.prompt.dialects.detect import detect
from clipcond.prompt.dialects.names import DIALECTS
from clipcond.prompt.dialects.parse import parse
from clipcond.prompt.dialects.schedules import resolve
from clipcond.prompt.items import Adapter, Break, Compose, Embedding, Item, Schedule, Swap, Words

pytestmark = pytest.mark.property

_SNIPPETS = [
    *'()[]:|\\,.+-="<> \n019ab',
    *(
        "BREAK",
        "AND",
        " BREAK ",
        " AND ",
        "<lora:x:1>",
        "<a:",
        "[a:b:.5]",
        "[a|b]",
        "(a:1.2)",
        ":1.5)",
        ":1,5)",
        "16:9)",
    ),
    *(
        "embedding:x",
        "cat",
        " fox",
        "++",
        ").and(",
        ").blend(1, 1)",
        ".swap(",
        "cat.swap(dog)",
        ".attend(",
        "withLora(",
    ),
    *("withLora(x, 1)", '("a", "b").and()', ")1.3", "\\(", "\\]", "é", "😀", "\u3000", "\udc80", "İ", "<|endoftext|>"),
]
soup = st.lists(st.sampled_from(_SNIPPETS), max_size=40).map("".join)
texts = soup | st.text(max_size=80)
dialects = st.sampled_from(DIALECTS)
_EMBEDDINGS = {"x": 2, "a b": 3, "İ": 1}

# what may stand between items: brackets, numbers, blanks, and in compel the names of calls and of their options
_MARKS = {
    "plain": r"",
    "a1111": r"(?:[()\[\]:|0-9.+\-\s\\]|#[^\n]*)*",
    "comfy": r"(?:[()]|:\s*[+\-]?[0-9.]+\s*\)|\.(?:pt|bin|safetensors))*",
    "compel": r"(?:\.(?:and|add|blend|swap|attend)\(|\w+\s*=|no_normalize|[()\",0-9.+\-\s])*",
}


def leaves(items: tuple[Item, ...]) -> Iterator[Words | Break | Compose | Adapter | Embedding]:
    """Every item that holds no others, in the order of the prompt."""
    for item in items:
        if isinstance(item, Schedule):
            for option in item.options:
                yield from leaves(option)
        elif isinstance(item, Swap):
            yield from leaves(item.original)
            yield from leaves(item.edited)
        else:
            yield item


@given(texts, dialects, st.booleans(), st.booleans())
@example("[a:[b|(c:1.2)]:5] AND x:2 <lora:x:1>", "a1111", True, True)
@example('("a (b)2", c).and(1, 2) withLora(x)', "compel", True, True)
def test_items_and_marks_tile_the_prompt(prompt: str, dialect: str, schedules: bool, named: bool) -> None:
    parsed = parse(prompt, dialect, schedules=schedules, embeddings=_EMBEDDINGS if named else {})
    between, at = [], 0
    for item in leaves(parsed.items):
        assert at <= item.start <= item.end <= len(prompt)
        between.append(prompt[at : item.start])
        at = item.end
    for marks in (*between, prompt[at:]):
        assert re.fullmatch(_MARKS[dialect], marks), marks


@given(texts, dialects)
def test_containers_span_what_they_hold(prompt: str, dialect: str) -> None:
    def check(items: tuple[Item, ...], start: int, end: int) -> None:
        for item in items:
            assert start <= item.start <= item.end <= end
            start = item.end
            options: tuple[tuple[Item, ...], ...] = ()
            if isinstance(item, Schedule):
                options = item.options
            elif isinstance(item, Swap):
                options = (item.original, item.edited)
            for option in options:
                check(option, item.start + 1 if isinstance(item, Schedule) else item.start, item.end - 1)

    check(parse(prompt, dialect).items, 0, len(prompt))


@given(texts, dialects)
def test_text_is_what_stands_at_its_places(prompt: str, dialect: str) -> None:
    for item in leaves(parse(prompt, dialect, embeddings=_EMBEDDINGS).items):
        if isinstance(item, Words):
            assert len(item.places) == len(item.text) + 1
            assert (item.places[0], item.places[-1]) == (item.start, item.end)
            assert list(item.places[:-1]) == sorted(set(item.places[:-1]))
            for character, at, behind in zip(item.text, item.places, item.places[1:], strict=False):
                source = prompt[at:behind]
                escaped = source == "\\" + character and character in '()[]\\",.+-='
                dropped = re.fullmatch(re.escape(character) + r"(?:\\|#[^\n]*)*", source) and dialect == "a1111"
                assert source == character or escaped or dropped


@given(st.text(alphabet="abcxyzäß日😀 ,;!?'\n\t", max_size=80), dialects)
def test_text_without_syntax_is_left_alone(prompt: str, dialect: str) -> None:
    assert "".join(item.text for item in parse(prompt, dialect) if isinstance(item, Words)) == prompt
    assert len(parse(prompt, dialect).items) <= 1


@given(texts)
def test_plain_round_trips(prompt: str) -> None:
    parsed = parse(prompt)
    assert "".join(item.text for item in parsed if isinstance(item, Words)) == prompt
    assert len(parsed.items) == bool(prompt)


@given(texts, dialects)
def test_parsing_is_deterministic(prompt: str, dialect: str) -> None:
    first, again = parse(prompt, dialect), parse(prompt, dialect)
    assert first == again
    assert hash(first) == hash(again)
    assert detect(prompt) == detect(prompt)


@given(texts, dialects)
def test_warnings_are_ordered_and_inside(prompt: str, dialect: str) -> None:
    spans = [(found.start, found.end) for found in parse(prompt, dialect).warnings]
    assert spans == sorted(spans)
    assert all(0 <= start < end <= len(prompt) for start, end in spans)


@given(
    st.lists(
        st.sampled_from(
            ["(" * 40, ")", "[" * 40, "]", "a", ":9999)", ":-99999)", "+" * 99, "(a", ")99999", ".attend(-8)"]
        ),
        max_size=40,
    ).map("".join),
    dialects,
)
def test_weights_are_finite(prompt: str, dialect: str) -> None:
    for item in leaves(parse(prompt, dialect).items):
        if not isinstance(item, Break):
            assert isfinite(item.weight)
            assert abs(item.weight) <= 1e4


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    weight = st.sampled_from(["0.5", "1.3", " .9 ", "-1"])
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        inner.map("({})".format),
        inner.map("[{}]".format),
        st.tuples(inner, weight).map(lambda parts: "({}:{})".format(*parts)),
        st.tuples(inner, inner).map(lambda parts: "[{}:{}:9]".format(*parts)),
        inner.map("[{}:9]".format),
        st.tuples(inner, inner).map(lambda parts: "[{}|{}]".format(*parts)),
    )


wellformed = st.recursive(st.sampled_from(["cat", " a dog", "x, ", r"\(", ""]), _nested, max_leaves=12)


@given(wellformed)
def test_the_first_options_are_what_a_resolved_prompt_says(prompt: str) -> None:
    def first(items: tuple[Item, ...]) -> Iterator[tuple[str, float]]:
        for item in items:
            if isinstance(item, Schedule):
                yield from first(item.options[0])
            elif isinstance(item, Words):
                yield from ((character, item.weight) for character in item.text)

    ((_, resolved),) = resolve(prompt, 1)
    expected = list(first(parse(resolved, "a1111", schedules=False).items))
    found = list(first(parse(prompt, "a1111").items))
    assert [character for character, _ in found] == [character for character, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


def _words_of_compel(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    suffix = st.sampled_from(["", "+", "--", "1.3", ".5", "2", "+-", ".attend(1.5)", ".attend(++)"])
    return st.one_of(
        st.tuples(inner, inner).map(" ".join),
        st.tuples(inner, suffix).map(lambda parts: "({}){}".format(*parts)),
        st.tuples(inner.filter(lambda text: '"' not in text), suffix).map(lambda parts: '"{}"{}'.format(*parts)),
    )


_OWN = compels_parser()
compel_words = [
    "cat",
    "dog+",
    "a fox-",
    "t-shirt",
    "t-shirt-",
    "C++",
    "so, it",
    "x.",
    "b--, c",
    "-d",
    "a - b",
    "e=f",
    "y+-",
]
compel_prompts = st.recursive(st.sampled_from(compel_words), _words_of_compel, max_leaves=6)


@pytest.mark.skipif(_OWN is None, reason="compel is not installed")
@given(compel_prompts)
@example("(a fox (red)1.3 x.)++ e=f--")
@example("(a - (b)2)++ c+")
def test_compel_itself_reads_the_same(prompt: str) -> None:
    assert _OWN is not None
    assume(prompt.count("(") <= 4)  # its time grows fourfold with every bracket that fails
    (flat,) = _OWN.PromptParser().parse_conjunction(prompt).prompts or [_OWN.FlattenedPrompt([("", 1.0)])]
    expected = [
        (character, part.weight) for part in flat.children for character in part.text if not character.isspace()
    ]
    found = [
        (character, item.weight)
        for item in parse(prompt, "compel")
        if isinstance(item, Words)
        for character in item.text
        if not character.isspace()
    ]
    assert [character for character, _ in found] == [character for character, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])
