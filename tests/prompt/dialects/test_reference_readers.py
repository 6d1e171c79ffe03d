"""The dialects, and translations into them, against readers made from the rules alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import reference_readers
from hypothesis import example, given
from hypothesis import strategies as st
from reference_readers import Characters

from clipcond.prompt.dialects.parse import parse
from clipcond.prompt.dialects.translate import translate
from clipcond.prompt.items import Embedding, Words

VECTORS = Path(__file__).parents[2] / "vectors"
# no schedules, comments, tags, keywords, weights of parts or embeddings: the slow readers know none of them
brackets = st.lists(
    st.sampled_from([*"()()()[]\\a ", "b", ":1.3)", ": .5 )", ":", "1", ":-2)", "):"]), max_size=16
).map("".join)
weights = st.floats(-2, 2).map(lambda weight: round(weight, 6))
characters = st.characters(exclude_categories=["Cs", "Co"])


def visible(found: Characters) -> Characters:
    return [(character, pytest.approx(weight, abs=1e-5)) for character, weight in found if not character.isspace()]


def own(prompt: str, dialect: str) -> Characters:
    return [
        (character, item.weight)
        for item in parse(prompt, dialect, schedules=False).items
        if isinstance(item, Words)
        for character in item.text
        if not character.isspace()
    ]


@pytest.mark.parametrize("dialect", ["a1111", "comfy"])
def test_the_slow_readers_give_the_vectors(dialect: str) -> None:
    read = getattr(reference_readers, dialect)
    for vector in json.loads((VECTORS / f"grammar_{dialect}.json").read_text("utf-8"))["vectors"]:
        said = vector.get("wanted", vector["expected"])
        if "BREAK" in vector["prompt"] or vector["prompt"] == "(cat:1.2.3)":
            continue
        expected = [(character, weight) for text, weight in said for character in text]
        assert visible(read(vector["prompt"])) == [pair for pair in expected if not pair[0].isspace()]


@pytest.mark.property
@given(brackets.filter(lambda prompt: not prompt.rstrip()[-1:].isdecimal()))
@example("((a:1.3)(b))(c")
def test_a1111_reads_brackets_as_the_rules_say(prompt: str) -> None:
    assert own(prompt, "a1111") == visible(reference_readers.a1111(prompt))


@pytest.mark.property
@given(brackets)
@example("((red fox:1.4)")
@example("((a) (b)")
@example("(((a))")
@example("(((a)b:1.2)c:1.3)")
@example("a) (b (c:1.2) d)")
@example("a girl :), (red hair:1.3)")
@example("(()")
def test_comfy_reads_brackets_as_the_rules_say(prompt: str) -> None:
    assert own(prompt, "comfy") == visible(reference_readers.comfy(prompt))


@pytest.mark.property
@pytest.mark.parametrize("target", ["a1111", "comfy"])
@given(text=st.text(characters, max_size=12).filter(lambda text: "<" not in text and "#" not in text), weight=weights)
@example(text="C++ \\", weight=-0.5)
@example(text="16:9", weight=1.0)
@example(text="(a:1.2)", weight=0.0)
def test_words_of_any_characters_and_weights_arrive_as_the_target_reads_them(
    target: str, text: str, weight: float
) -> None:
    prompt = (
        "("
        + "".join("\\" + character if character in "()[]\\" else character for character in text)
        + f"x:{weight:.6f})"
    )
    source = "a1111"
    if target == "a1111":
        source, prompt = "comfy", f"({text.replace('(', '').replace(')', '').replace(chr(92), '')}x:{weight:.6f})"
    translation = translate(prompt, source, target)
    if any(one.code.startswith(("lost", "changed-t")) for one in translation.lost) or "embedding" in text:
        return
    read = visible(getattr(reference_readers, target)(translation.text))
    expected = own(prompt, source)
    assert [(character.lower(), value) for character, value in read] == [
        (character.lower(), pytest.approx(value, abs=1e-5)) for character, value in expected
    ]


@pytest.mark.property
@pytest.mark.skipif(reference_readers.compels_parser() is None, reason="compel is not installed")
@given(text=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=8), weight=weights)
def test_words_and_weights_arrive_as_compel_itself_reads_them(text: str, weight: float) -> None:
    prompt = f"({text.replace('(', '').replace(')', '').replace(chr(92), '').replace(':', '')}x:{weight:.6f})"
    translation = translate(prompt, "comfy", "compel")
    if translation.lost:
        assert weight < 0 or "embedding" in text
        return
    if any(mark + sign in translation.text for mark in "\\" for sign in "+-=,."):
        return  # compel keeps the backslash of these escapes in the text; clipcond's dialect does not, on purpose
    expected = [(character, value) for character, value in own(prompt, "comfy")]
    assert visible(reference_readers.compel(translation.text)) == [
        (character, pytest.approx(value, abs=1e-5)) for character, value in expected
    ]


@pytest.mark.property
@given(st.text(characters, min_size=1, max_size=6).filter(str.strip), weights, st.sampled_from(["a1111", "compel"]))
@example("style+", 1.2, "compel")
@example("AND", 1.2, "a1111")
@example("a(b", 1.2, "a1111")
@example('q"', -1.0, "compel")
def test_names_of_any_characters_arrive_or_are_told(name: str, weight: float, target: str) -> None:
    known = {name.strip(): 2}
    prompt = f"(embedding:{name.strip()}:{weight:.6f})"
    arrived = [item for item in parse(prompt, "comfy", embeddings=known).items if isinstance(item, Embedding)]
    if [item.name for item in arrived] != [*known]:
        return
    translation = translate(prompt, "comfy", target, embeddings=known)
    found = parse(translation.text, target, embeddings=known).items
    same = [(item.name, pytest.approx(item.weight, abs=1e-5)) for item in found if isinstance(item, Embedding)]
    assert translation.lost or same == [(item.name, item.weight) for item in arrived]
