"""Translations: read back in the target's dialect they are the same words and weights, and losses are said."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.prompt.dialects.names import DIALECTS
from clipcond.prompt.dialects.parse import parse
from clipcond.prompt.dialects.translate import translate
from clipcond.prompt.items import Adapter, Break, Embedding, Words
from clipcond.prompt.layout import joined

WEIGHTED = ("a1111", "comfy", "compel")
soup = st.text(alphabet="ab ()[]\\:1.5+-\",<>|'\n", max_size=40)
snippets = st.lists(
    st.sampled_from(
        ["fox", " ", "(", ")", "[", "]", ":1.3", ":0.5)", "++", "--", ")1.2", '"', "\\", "BREAK", "AND", "<lora:x:1>",
         "embedding:foo", "C++", "16:9", ".and(", ")", "C", ".", ",", "-", "1", "🦊", "ﬁ", "\n", "::", "[a:b:3]", "[a|b]"]
    ),
    max_size=14,
).map("".join)  # fmt: skip


def letters(items):
    """Every character that is no blank, with its weight; case does not count."""
    return [
        (character, pytest.approx(item.weight, abs=1e-5))
        for item in items
        if isinstance(item, Words)
        for character in item.text.lower()
        if not character.isspace()
    ]


def words(items):
    """Words as they will be tokenised: apart where a blank or another passage parts them."""
    return [
        (word, pytest.approx(item.weight, abs=1e-5))
        for item in joined(items)
        if isinstance(item, Words)
        for word in item.text.lower().split()
    ]


@pytest.mark.parametrize(
    ("prompt", "source", "target", "text"),
    [
        ("a (red:1.3) fox (close-up)", "a1111", "comfy", "a (red:1.3) fox (close-up:1.1)"),
        ("a (red:1.3) fox (close-up)", "a1111", "compel", "a (red)1.3 fox (close-up)1.1"),
        ("a (red:1.3) fox [x]", "a1111", "comfy", "a (red:1.3) fox (x:0.909091)"),
        ("((a:1.2) b:1.3)", "a1111", "comfy", "(a:1.56) (b:1.3)"),
        ("((a:1.2) b:1.3)", "comfy", "a1111", "(a:1.2) (b:1.3)"),
        ("(a:b:1.2)", "a1111", "compel", "(a:b)1.2"),
        ("( red fox :1.3)", "a1111", "comfy", " (red fox:1.3) "),
        (r"(girl \(fate\):1.2)", "a1111", "comfy", r"(girl \(fate\):1.2)"),
        (r"fox \[x\] \\", "a1111", "comfy", "fox [x] \\"),
        ("fox [x]", "comfy", "a1111", r"fox \[x\]"),
        ("a (close-up)", "plain", "a1111", r"a \(close-up\)"),
        ("a (close-up)", "plain", "comfy", r"a \(close-up\)"),
        ("a (close-up)", "plain", "compel", r"a \(close-up\)"),
        ("C++ code, t-shirt", "plain", "compel", r"C\+\+ code, t-shirt"),
        ("C++ code, t-shirt-", "plain", "a1111", "C++ code, t-shirt-"),
        ("a cat++ dog-", "compel", "a1111", "a (cat:1.21) (dog:0.9)"),
        ("a cat++ dog-", "compel", "comfy", "a (cat:1.21) (dog:0.9)"),
        ("(portrait with (blue eyes)1.3)1.1", "compel", "a1111", "(portrait with:1.1) (blue eyes:1.43)"),
        (r"(x:1.2)y\\(z:1.3)", "a1111", "comfy", "(x:1.2)y\\ (z:1.3)"),
        (r"(x\\:1.2)", "a1111", "compel", "(x\\ )1.2"),
        ("(a:1)b", "a1111", "plain", "ab"),
        ("(cat:1.2)5", "a1111", "compel", "(cat)1.2 5"),
        ("(cat:2).", "a1111", "compel", "(cat)2.0 ."),
        ("(a)(b)", "a1111", "comfy", "(ab:1.1)"),
        ("(a)(b)", "comfy", "a1111", "(a:1.1) (b:1.1)"),
        ("(a:1)(b:1)c", "a1111", "comfy", "abc"),
        ("(a:1)(b:1)c", "comfy", "a1111", "a b c"),
        ("fo<lora:x:1>x", "a1111", "compel", "fox withLora(x,1.0)"),
        ("(a:0)", "a1111", "compel", "(a)0.0"),
        ("(a:10000)", "a1111", "comfy", "(a:10000.0)"),
        ("(a:0.000001)", "a1111", "comfy", "(a:0.000001)"),
        ("<lora:x:0.5>fox", "a1111", "compel", "withLora(x,0.5) fox"),
        ("withLora(x,0.5) fox", "compel", "a1111", "<lora:x:0.5> fox"),
        ("<lora:x:1> is text", "plain", "a1111", "(<:1)lora:x:1> is text"),
        ("embedding:foo is text", "plain", "comfy", "(embedding:1.0):foo is text"),
        ("a (embedding:foo:1.2)", "comfy", "a1111", "a (foo:1.2)"),
        ("a (embedding:foo:1.2)bar", "comfy", "compel", "a (foo)1.2 bar"),
        ("", "plain", "a1111", ""),
        ("", "a1111", "compel", ""),
        (" \n", "plain", "comfy", " \n"),
    ],
)
def test_nothing_is_lost(prompt, source, target, text):
    translation = translate(prompt, source, target)
    assert translation.text == text
    assert translation.lost == ()


@pytest.mark.parametrize(
    ("prompt", "source", "target", "text", "lost"),
    [
        ("a (red:1.3) fox", "a1111", "plain", "a red fox", [("lost-weight", "red")]),
        ("(a (b:1.3):0.9)", "comfy", "plain", "a b", [("lost-weight", "a "), ("lost-weight", "b")]),
        ("a BREAK b", "a1111", "comfy", "a b", [("lost-break", "BREAK")]),
        ("a BREAK b", "a1111", "compel", "a b", [("lost-break", "BREAK")]),
        ("a AND b :1.2", "a1111", "compel", "a b ", [("lost-and", "AND")]),
        ("a [cat:dog:5] b", "a1111", "comfy", "a cat b", [("lost-schedule", "[cat:dog:5]")]),
        ("(a:-1.5)", "a1111", "compel", "(a).attend(-1.5)", [("lost-weight", "a")]),
        ("[|(b:1.2)] c", "a1111", "compel", "(b)1.2 c", [("lost-schedule", "[|(b:1.2)]")]),
        ("a <lora:x:1> b", "a1111", "comfy", "a  b", [("lost-adapter", "<lora:x:1>")]),
        ("<lora:x:1:0.5>b", "a1111", "compel", "withLora(x,1.0) b", [("lost-adapter-weight", "<lora:x:1:0.5>")]),
        ("<hypernet:x:1> b", "a1111", "compel", " b", [("lost-adapter", "<hypernet:x:1>")]),
        ("salt AND pepper", "plain", "a1111", "salt and pepper", [("changed-case", "AND")]),
        ("LINE BREAK", "comfy", "a1111", "LINE break", [("changed-case", "BREAK")]),
        ("cat.swap(dog) b", "compel", "a1111", "cat b", [("lost-swap", "cat.swap(dog)")]),
    ],
)
def test_what_is_lost_is_said(prompt, source, target, text, lost):
    translation = translate(prompt, source, target)
    assert translation.text == text
    assert [(one.code, prompt[one.start : one.end]) for one in translation.lost] == lost


@pytest.mark.parametrize(
    ("prompt", "source", "target", "text"),
    [
        ("wide 16:9", "plain", "a1111", "wide 16(::1)9"),  # no weight of the whole prompt
        ("wide 16:9 withLora(x,0.5)", "compel", "a1111", "wide 16(::1)9 <lora:x:0.5>"),
        ("a;<lora:x:1>", "plain", "a1111", "a;(<:1)lora:x:1>"),
        (";<lora:", "compel", "a1111", ";(<:1)lora:"),
        ("(E=mc2:1.3)", "a1111", "compel", r"(E\=mc2)1.3"),
        ("E=mc2", "a1111", "compel", "E=mc2"),
        ("embedding:AND", "comfy", "a1111", "and"),
        ("embedding:-x", "plain", "comfy", "(embedding:1.0):-x"),
        (";\\embedding:x", "plain", "comfy", r"(;\embedding:1.0):x"),
        (r"\m/ (a)(b)", "a1111", "comfy", "m/ (ab:1.1)"),
        ("a | b [c]", "plain", "a1111", r"a | b \[c\]"),
        ("a fox :) (b:1.2)", "comfy", "a1111", r"a fox :\) \(b:1.2\)"),
        ("((red fox:1.4)", "comfy", "a1111", r"(\(red fox:1.4)"),
        ("(:1.3)", "comfy", "a1111", "(:1.3:1.1)"),
        ("a cat :1.2, dog", "a1111", "comfy", "a cat :1.2, dog"),
        ("a cat :1", "a1111", "comfy", "a cat "),
    ],
)
def test_what_could_be_read_otherwise_is_escaped(prompt, source, target, text):
    translation = translate(prompt, source, target)
    assert (translation.text, translation.lost) == (text, ())


@pytest.mark.parametrize(
    ("prompt", "source", "target", "text", "lost"),
    [
        ("(watermark:-1)", "a1111", "compel", "(watermark).attend(-1.0)", [("lost-weight", "watermark")]),
        ("withLora(>)", "compel", "a1111", "", [("lost-adapter", "withLora(>)")]),
        ("withLora(a:b)", "compel", "a1111", "", [("lost-adapter", "withLora(a:b)")]),
        ("<lora:x:-1>", "a1111", "compel", "", [("lost-adapter", "<lora:x:-1>")]),
        ("a #1 fox", "plain", "a1111", "a 1 fox", [("changed-text", "#")]),
        ("a fox # mine\nin snow", "a1111", "plain", "a fox \nin snow", [("lost-comment", "# mine")]),
        ("a cat :1.2", "a1111", "comfy", "a cat ", [("lost-weight", "")]),
    ],
)
def test_no_loss_is_silent(prompt, source, target, text, lost):
    translation = translate(prompt, source, target)
    assert translation.text == text
    assert [(one.code, prompt[one.start : one.end]) for one in translation.lost] == lost


@pytest.mark.parametrize("name", ["style+", "style--", "a+b-", "C++", "x.y-"])
def test_the_name_of_an_embedding_that_ends_in_a_sign_is_escaped(name):
    known = {name: 2}
    said = translate(f"(embedding:{name}:1.2), embedding:{name} fox", "comfy", "compel", embeddings=known)
    arrived = parse(said.text, "compel", embeddings=known).items
    assert [(item.name, item.weight) for item in arrived if isinstance(item, Embedding)] == [(name, 1.2), (name, 1.0)]
    assert said.lost == ()


def test_prompts_that_compel_joins_are_chunks_of_a1111():
    translation = translate('("a fox", "a hen").and()', "compel", "a1111")
    assert [item for item in parse(translation.text, "a1111") if isinstance(item, Break)] != []
    assert translation.lost == ()
    weighted = translate('("a fox", "a hen").and(1, 0.5)', "compel", "a1111")
    assert [one.code for one in weighted.lost] == ["lost-weight"]
    assert [one.code for one in translate('("a", "b").and()', "compel", "comfy").lost] == ["lost-and"]
    assert [one.code for one in translate('("a", "b").blend(1, 1)', "compel", "a1111").lost] == ["lost-blend"]


def test_embeddings_keep_their_names():
    known = {"easynegative": 8, "bad name": 2}
    said = translate("(easynegative:1.2), ugly", "a1111", "comfy", embeddings=known)
    assert (said.text, said.lost) == ("(embedding:easynegative:1.2), ugly", ())
    assert [item.name for item in parse(said.text, "comfy", embeddings=known) if isinstance(item, Embedding)] == [
        "easynegative"
    ]
    lost = translate("a bad name", "a1111", "comfy", embeddings=known)
    assert lost.text == "a bad name"
    assert [(one.code, one.start, one.end) for one in lost.lost] == [("lost-embedding", 2, 10)]


def test_adapters_cross_over_and_back():
    there = translate("a fox <lora:foxes:0.65>", "a1111", "compel").text
    back = parse(translate(there, "compel", "a1111").text, "a1111")
    assert [(item.name, item.weight) for item in back if isinstance(item, Adapter)] == [("foxes", 0.65)]


@pytest.mark.parametrize(("source", "target"), [("klingon", "plain"), ("plain", "klingon")])
def test_an_unknown_dialect_is_an_error(source, target):
    with pytest.raises(ConfigError, match="unknown dialect 'klingon'; there are plain, a1111, comfy, compel"):
        translate("a", source, target)


@pytest.mark.parametrize("source", DIALECTS)
@pytest.mark.parametrize("target", DIALECTS)
def test_long_soups_are_translated(source, target):
    for piece in ("(", ")", "[", "(a:1.2)", "a+ ", "\\", "<lora:", "AND ", "embedding:", '"', "[a:b:1]"):
        translation = translate(piece * 3000, source, target)
        assert len(translation.text) < 20 * len(piece) * 3000


def plain_words(prompt, dialect):
    """The prompt's items, if they are words only."""
    items = parse(prompt, dialect).items
    return items if all(isinstance(item, Words) for item in items) else None


@pytest.mark.property
@given(soup | snippets, st.sampled_from(DIALECTS), st.sampled_from(WEIGHTED))
@example("(a:1.2)(b:1)\\", "a1111", "comfy")
@example('"a"++1', "compel", "a1111")
def test_words_and_weights_arrive(prompt, source, target):
    items = plain_words(prompt, source)
    if items is None:
        return
    translation = translate(prompt, source, target)
    arrived = parse(translation.text, target).items
    assert all(isinstance(item, Words) for item in arrived), translation.text
    assert letters(arrived) == letters(items)
    assert {one.code for one in translation.lost} <= {"changed-case"}
    if not re.search(r"<\w+:|embedding:", prompt, re.IGNORECASE) and source != target:
        assert words(arrived) == words(items)


@pytest.mark.property
@given(soup | snippets, st.sampled_from(WEIGHTED), st.sampled_from(WEIGHTED))
def test_round_trips_keep_words_and_weights(prompt, source, through):
    items = plain_words(prompt, source)
    if items is None:
        return
    there = translate(prompt, source, through)
    back = translate(there.text, through, source)
    assert letters(parse(back.text, source).items) == letters(items)


@pytest.mark.property
@given(soup | snippets, st.sampled_from(DIALECTS), st.sampled_from(DIALECTS))
def test_any_prompt_can_be_translated(prompt, source, target):
    translation = translate(prompt, source, target)
    for one in translation.lost:
        assert 0 <= one.start <= one.end <= len(prompt)
    if source == target:
        assert translation.text == prompt


@pytest.mark.parametrize("separator", "\x1c\x1d\x1e\x1f")
def test_a_separator_that_tokenizers_read_keeps_its_weight(separator):
    prompt = f"(fox {separator}:1.3)"
    there = translate(prompt, "a1111", "compel")
    assert there.lost == ()
    weights = [(item.text, item.weight) for item in parse(there.text, "compel").items]
    assert weights == [(f"fox {separator}", 1.3)]
