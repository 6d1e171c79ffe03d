"""Every dialect against its golden vectors, and each rule and warning by itself."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from clipcond.errors import ConfigError
from clipcond.prompt.dialects.detect import detect
from clipcond.prompt.dialects.names import DIALECTS
from clipcond.prompt.dialects.parse import parse
from clipcond.prompt.items import Adapter, Break, Compose, Embedding, Item, Parsed, Schedule, Swap, Words

HERE = Path(__file__).parents[2] / "vectors"
SHARED = Path(__file__).resolve().parents[4] / "shared" / "reference" / "vectors"
VECTORS = [
    pytest.param(dialect, vector, id=f"{dialect}-{vector['prompt']}")
    for dialect in DIALECTS[1:]
    for vector in json.loads((HERE / f"grammar_{dialect}.json").read_text("utf-8"))["vectors"]
]
Piece = tuple[str, "float | None"]


def pieces(items: tuple[Item, ...]) -> list[Piece]:
    """Texts, trimmed, with weights; a chunk break is ("BREAK", None)."""
    found: list[Piece] = []
    for item in items:
        if isinstance(item, Words):
            found.append((item.text.strip(), item.weight))
        elif isinstance(item, Break):
            found.append(("BREAK", None))
    return found


def codes(parsed: Parsed) -> list[tuple[str, str]]:
    """The warnings: code, and the passage that it is about."""
    return [(found.code, parsed.prompt[found.start : found.end]) for found in parsed.warnings]


def expected_pieces(dialect: str, vector: dict[str, Any]) -> list[Piece]:
    said = vector.get("wanted", vector["expected"])
    if dialect == "compel" and "wanted" not in vector:
        said = [piece for part in said for piece in part]
    return [(text.strip(), weight) for text, weight in said]


@pytest.mark.parametrize(("dialect", "vector"), VECTORS)
def test_vectors(dialect: str, vector: dict[str, Any]) -> None:
    schedules = vector["prompt"] != "[cat:1.5]"  # recorded without a schedule pass
    parsed = parse(vector["prompt"], dialect, schedules=schedules)
    got, expected = pieces(parsed.items), expected_pieces(dialect, vector)
    if dialect == "compel":  # which leaves blanks out
        got = [piece for piece in got if piece[0]]
    if vector.get("partial"):
        got = [piece for piece in got if piece[0] in {text for text, _ in expected}]
    assert [text for text, _ in got] == [text for text, _ in expected]
    for (_, weight), (_, wanted) in zip(got, expected, strict=True):
        assert wanted is None or weight == pytest.approx(wanted, abs=1e-5)
    warning = vector.get("warning")
    spans = [(found.code, found.start, found.end) for found in parsed.warnings]
    if warning:
        assert (warning["code"], warning["start"], warning["end"]) in spans
    else:
        assert {code for code, _, _ in spans} <= {"leftover-escape"}


@pytest.mark.parametrize("dialect", DIALECTS[1:])
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/reference is not beside this checkout")
def test_the_vectors_here_are_the_reference(dialect: str) -> None:
    name = f"grammar_{dialect}.json"
    ours = json.loads((HERE / name).read_text("utf-8"))
    del ours["version"]
    assert ours == json.loads((SHARED / name).read_text("utf-8"))


def test_an_unknown_dialect_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown dialect 'auto'; there are plain, a1111, comfy, compel"):
        parse("a fox", "auto")


def test_plain_is_one_piece_as_typed() -> None:
    prompt = r"a (red:1.3) fox \(x\)"
    (words,) = parse(prompt)
    assert words == Words(text=prompt, weight=1.0, start=0, end=21, places=tuple(range(22)))
    assert codes(parse(prompt)) == [("looks-like-a1111", "(red:1.3)"), ("leftover-escape", r"\(")]
    assert parse("").items == ()


def test_places_lead_back_to_the_prompt() -> None:
    prompt = r"a (b \(c\) d:1.5) e"
    _, group, behind = parse(prompt, "a1111")
    assert isinstance(group, Words)
    assert isinstance(behind, Words)
    assert (group.text, group.start, group.end) == ("b (c) d", 3, 12)
    assert [prompt[at] for at in group.places] == ["b", " ", "\\", "c", "\\", " ", "d", ":"]
    assert (behind.start, behind.end) == (17, 19)


def test_groups_are_numbered_and_unclosed_ones_are_none() -> None:
    items = parse("a (b (c) d) [e] (f", "a1111").items
    groups = {item.text.strip(): item.group for item in items if isinstance(item, Words)}
    assert groups == {"a": -1, "b": 1, "c": 2, "d": 1, "": -1, "e": 3, "f": -1}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("(a [b) c]", [("a", 1.1), ("b", 1.0), ("c", 1 / 1.1)]),  # the two kinds pair up by themselves
        ("(a:-1)", [("a", -1.0)]),
        ("(a:+.5)", [("a", 0.5)]),
        ("(a:2.)", [("a", 2.0)]),
        ("(a:(b)1.5)", [("a:", 1.1), ("b", 1.21), ("1.5", 1.1)]),
        ("(a:1e5)", [("a:1e5", 1.1)]),
        ("(a:٣)", [("a:٣", 1.1)]),  # other digits are text
        ("(a" * 4, [("a", 1.1), ("a", 1.21), ("a", 1.331), ("a", 1.4641)]),
        ("a) b] c", [("a) b] c", 1.0)]),
        (r"a\\(b)", [("a\\", 1.0), ("b", 1.1)]),  # the backslash is escaped, the bracket is not
        (r"a\:b\x", [("a:bx", 1.0)]),  # a lone backslash is dropped
        ("BREAKFAST, A_BREAK", [("BREAKFAST, A_BREAK", 1.0)]),
        ("", [("", 1.0)]),
    ],
)
def test_a1111_weights(prompt: str, expected: list[Piece]) -> None:
    got = pieces(parse(prompt, "a1111").items)
    assert [text for text, _ in got] == [text for text, _ in expected]
    assert [weight for _, weight in got] == pytest.approx([weight for _, weight in expected])


def test_weights_stay_finite() -> None:
    heavy = pieces(parse("(" * 5000 + "a", "a1111").items)
    assert heavy == [("a", 1e4)]
    assert pieces(parse("(a:" + "9" * 500 + ")", "a1111").items) == [("a", 1e4)]
    for dialect in ("a1111", "comfy"):
        assert pieces(parse("(" * 9000 + "a" + ")" * 9000, dialect).items) == [("a", 1e4)]
    assert pieces(parse("(" * 90 + "a" + ")9" * 90, "compel").items) == [("a", 1e4)]
    assert pieces(parse("a" + "+" * 5000, "compel").items) == [("a", 1e4)]
    assert pieces(parse("(a:-" + "9" * 500 + ")", "comfy").items) == [("a", -1e4)]


def test_and_composes_parts_by_their_weights() -> None:
    items = parse("a cat :1.2 AND a (dog:1.3) AND a fox:.5 <lora:x:1>", "a1111").items
    assert [(item.weight, item.start, item.end) for item in items if isinstance(item, Compose)] == [
        (1.2, 0, 0),
        (1.0, 11, 14),
        (0.5, 27, 30),
    ]
    assert {item.how for item in items if isinstance(item, Compose)} == {"noise"}
    assert [text for text, _ in pieces(items)] == ["a cat", "a", "dog", "", "a fox"]


def test_and_closes_brackets_and_schedules() -> None:
    parsed = parse("(a [b AND c:1.2) d:5]", "a1111")
    assert pieces(parsed.items) == [("a", 1.1), ("b", 1.0), ("c:1.2) d:5]", 1.0)]
    assert codes(parsed) == [
        ("unclosed-bracket", "("),
        ("unclosed-bracket", "["),
        ("stray-bracket", ")"),
        ("stray-bracket", "]"),
    ]


@pytest.mark.parametrize(
    ("prompt", "kind", "options", "when"),
    [
        ("[cat:dog:5]", "switch", [["cat"], ["dog"]], 5),
        ("[cat:dog: .5 ]", "switch", [["cat"], ["dog"]], 0.5),
        ("[dog:5]", "switch", [[], ["dog"]], 5),
        ("[cat::5]", "switch", [["cat"], []], 5),
        ("[fe|]", "alternate", [["fe"], []], 0),
        ("[a|b|c]", "alternate", [["a"], ["b"], ["c"]], 0),
        ("[(a:1.2):b:5]", "switch", [["a"], ["b"]], 5),
        ("[a|(b:1.2)]", "alternate", [["a"], ["b"]], 0),
        ("[<lora:x:1>a:b:5]", "switch", [["a"], ["b"]], 5),
        ("[(a:b:5]", "switch", [["a"], ["b"]], 5),  # the round bracket never closes
    ],
)
def test_schedules(prompt: str, kind: str, options: list[list[str]], when: float) -> None:
    (schedule,) = parse(prompt, "a1111").items
    assert isinstance(schedule, Schedule)
    assert (schedule.kind, schedule.when, schedule.start, schedule.end) == (kind, when, 0, len(prompt))
    assert [[text for text, _ in pieces(option)] for option in schedule.options] == options
    assert isinstance(schedule.when, int) == ("." not in prompt.rpartition(":")[2] and kind == "switch")


@pytest.mark.parametrize("prompt", ["[a:b]", "[a:b:c:5]", "[a|b:5]", "[a:b:(5)]", "[a:b:5", "[a:5:]", "[a]"])
def test_what_is_no_schedule_is_read_as_emphasis(prompt: str) -> None:
    items = parse(prompt, "a1111").items
    assert all(isinstance(item, Words) for item in items)
    assert "".join(item.text for item in items if isinstance(item, Words)) == prompt.strip("[]").replace("(5)", "5")


def test_options_of_a_schedule_take_the_weight_around_it() -> None:
    x, schedule, z = parse("(x [(a:1.2):b BREAK c:.5]:1.5) z", "a1111").items
    assert isinstance(schedule, Schedule)
    assert pieces((x, z)) == [("x", 1.5), ("z", 1.0)]
    assert [pieces(option) for option in schedule.options] == [
        [("a", pytest.approx(1.8))],
        [("b", 1.5), ("BREAK", None), ("c", 1.5)],
    ]
    assert schedule.items == schedule.options[0]
    (late,) = parse("[b:3]", "a1111").items
    assert isinstance(late, Schedule)
    assert pieces(late.items) == [("b", 1.0)]
    (loose,) = parse("[(a|b]", "a1111").items
    assert isinstance(loose, Schedule)
    assert [pieces(option) for option in loose.options] == [[("a", 1.1)], [("b", 1.0)]]
    (empty,) = parse("[|]", "a1111").items
    assert isinstance(empty, Schedule)
    assert empty.items == ()


def test_schedules_nest_to_a_limit() -> None:
    parsed = parse("[a:" * 40 + "b" + ":5]" * 40, "a1111")
    assert codes(parsed).count(("schedule-too-deep", "[")) == 8
    schedule, depth = next(item for item in parsed.items if isinstance(item, Schedule)), 1
    while inner := [item for item in schedule.options[1] if isinstance(item, Schedule)]:
        (schedule,), depth = inner, depth + 1
    assert depth == 32


def test_tags_are_taken_out() -> None:
    parsed = parse("a <lora:fur coat:0.8:1> b <lyco:x> <hypernet:y:z> <foo:bar> <b> <x: y", "a1111", adapters={"x"})
    tags = [item for item in parsed if isinstance(item, Adapter)]
    assert [(tag.kind, tag.name, tag.weight) for tag in tags] == [
        ("lora", "fur coat", 0.8),
        ("lyco", "x", 1.0),
        ("hypernet", "y", 1.0),
        ("foo", "bar", 1.0),
    ]
    assert parsed.prompt[tags[0].start : tags[0].end] == "<lora:fur coat:0.8:1>"
    assert "".join(item.text for item in parsed if isinstance(item, Words)) == "a  b    <b> <x: y"
    assert codes(parsed) == [("unknown-adapter", "fur coat"), ("bad-weight", ":z"), ("unknown-tag", "<foo:bar>")]


def test_nothing_inside_a_tag_is_syntax() -> None:
    (tag,) = parse("<lora:a (b) AND [c:d:5] BREAK:1>", "a1111").items
    assert isinstance(tag, Adapter)
    assert tag.name == "a (b) AND [c"
    (tag, words) = parse("<lora:a<b:c>d>", "a1111").items
    assert isinstance(tag, Adapter)
    assert (tag.kind, tag.name, tag.end) == ("lora", "a<b", 12)
    assert pieces((words,)) == [("d>", 1.0)]
    assert pieces(parse("<a:> <b", "a1111").items) == [("<a:> <b", 1.0)]


def test_adapters_of_compel_are_checked() -> None:
    assert codes(parse("withLora(x) withLora(y) a", "compel", adapters=["x"])) == [("unknown-adapter", "withLora(y)")]


def test_embeddings_are_found_by_name() -> None:
    known = {"cat": 1, "cat toy": 4, "<fox>": 2}
    items = parse("a (Cat Toy:1.2), cats, CAT and a <fox> [cat:x:5]", "a1111", embeddings=known).items
    found = [item for item in items if isinstance(item, Embedding)]
    assert [(item.name, item.vectors, item.weight, item.start, item.end) for item in found] == [
        ("cat toy", 4, 1.2, 3, 10),
        ("cat", 1, 1.0, 23, 26),
        ("<fox>", 2, 1.0, 33, 38),
    ]
    assert found[0].group == 1
    schedule = items[-1]
    assert isinstance(schedule, Schedule)
    assert isinstance(schedule.options[0][0], Embedding)
    assert "".join(text for text, _ in pieces(items)) == "a, cats,and a"
    assert [type(item) for item in parse("cat", "compel", embeddings=known)] == [Embedding]
    assert [type(item) for item in parse("my cat", "plain", embeddings=known)] == [Words, Embedding]


@pytest.mark.parametrize(
    ("prompt", "warnings"),
    [
        ("(a", [("unclosed-bracket", "(")]),
        ("a) b]", [("stray-bracket", ")"), ("stray-bracket", "]")]),
        ("(a:1,5) (b:1.2.3)", [("bad-weight", ":1,5"), ("bad-weight", ":1.2.3")]),
        ("(a 4:3)", [("weight-from-ratio", "4:3")]),
        ("(a 4:3:1), (b2:1), (1.5:2), (16:1.2)", []),
        ("(a:3)", [("weight-out-of-range", ":3")]),
        ("(a:-.5)", [("weight-out-of-range", ":-.5")]),
        ("((((((((a))))))))", [("weight-out-of-range", "a")]),
        ("((a:3))", [("weight-out-of-range", ":3")]),
        ("a, break, b", [("break-lower-case", "break")]),
        ("take a break", []),
        ("(a BREAK b)", [("break-in-group", "BREAK")]),
        ("TAKE A BREAK NOW", [("shouted-keyword", "BREAK")]),
        ("CATS AND DOGS", [("shouted-keyword", "AND")]),
        ("cats AND dogs BREAK birds", []),
        ("a ( ) [] (:1.2)", [("empty-group", "( )"), ("empty-group", "[]"), ("empty-group", "(:1.2)")]),
        ("[cat:1.5]", [("bracket-number", ":1.5")]),
        ("[cat:0.5]", []),
        ("a red fox++ x", [("foreign-syntax", "fox++")]),
        ("a embedding:x.pt y", [("foreign-syntax", "embedding:x.pt")]),
        ("a <|endoftext|> b", [("special-token-as-text", "<|endoftext|>")]),
        ("a \udc80", [("broken-unicode", "\udc80")]),
    ],
)
def test_warnings_of_a1111(prompt: str, warnings: list[tuple[str, str]]) -> None:
    assert codes(parse(prompt, "a1111")) == warnings


def test_many_findings_of_one_kind_are_summed_up() -> None:
    for prompt in (") " * 200, "() " * 200):
        warnings = parse(prompt, "a1111").warnings
        assert len(warnings) == 51
        (summed,) = [found for found in warnings if found.message == "and 150 more of the same"]
        assert (summed.start, summed.end) == (warnings[49].end + (warnings[1].start - warnings[0].end), len(prompt) - 1)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("((a) b:2)", [("a", 2.2), ("b", 2.0)]),  # a bare bracket multiplies, a number replaces
        ("(((a:0.5)):2)", [("a", 0.5)]),
        ("(x) b ((c) d", [("x", 1.1), ("b", 1.0), ("((c) d", 1.0)]),
        ("a) (b)", [("a) (b)", 1.0)]),
        (r"(a \(b\) \[c\]) (d \)", [(r"a (b) \[c\]", 1.1), ("", 1.0), ("(d )", 1.0)]),
        ("a BREAK b AND c [d]", [("a BREAK b AND c [d]", 1.0)]),
        ("", []),
    ],
)
def test_comfy(prompt: str, expected: list[Piece]) -> None:
    got = pieces(parse(prompt, "comfy").items)
    assert [text for text, _ in got] == [text for text, _ in expected]
    assert [weight for _, weight in got] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a girl :), (red hair:1.3)", [("a girl :), (red hair:1.3)", 1.0)]),
        ("a) (b (c:1.2) d)", [("a) (b", 1.0), ("c", 1.2), ("d)", 1.0)]),  # the further ( makes up for it
        ("((red fox:1.4)", [("(red fox", 1.4)]),
        ("x ((red fox:1.4)", [("x", 1.0), ("(red fox", 1.4)]),
        ("(:1.3)", [(":1.3", 1.1)]),
        ("(::1.3)", [(":", 1.3)]),
        ("(a:1e1)", [("a", 10.0)]),
        ("(a:1_0)", [("a", 10.0)]),
        ("(a:٣)", [("a", 3.0)]),
        ("(a:inf)", [("a", 1e4)]),
        ("(a:nan)", [("a:nan", 1.1)]),
        ("(a:.5e0 )", [("a", 0.5)]),
    ],
)
def test_comfy_counts_brackets_and_reads_numbers_as_comfyui_does(prompt: str, expected: list[Piece]) -> None:
    assert pieces(parse(prompt, "comfy").items) == expected


@pytest.mark.parametrize(
    ("prompt", "warnings"),
    [
        ("a girl :), (red hair:1.3)", [("stray-bracket", ")"), ("weights-disabled", "(red hair:1.3)")]),
        ("a) (b (c:1.2) d) (e:1.2)", [("stray-bracket", ")"), ("weights-disabled", "(b (c:1.2) d) (e:1.2)")]),
        ("((red fox:1.4)", [("unclosed-bracket", "(")]),
        ("(:1.3)", [("bad-weight", ":1.3")]),
    ],
)
def test_what_comfys_count_of_brackets_costs_is_told(prompt: str, warnings: list[tuple[str, str]]) -> None:
    assert codes(parse(prompt, "comfy")) == warnings


def test_comfy_embeddings() -> None:
    prompt = "(embedding:easy.pt:1.2), Embedding:dir/Bad-v2.safetensors. embedding:v1.5 embedding:no!"
    parsed = parse(prompt, "comfy", embeddings={"easy": 3, "dir/Bad-v2": 2, "v1.5": 1})
    found = [item for item in parsed if isinstance(item, Embedding)]
    assert [(item.name, item.vectors, item.weight, prompt[item.start : item.end]) for item in found] == [
        ("easy", 3, 1.2, "embedding:easy.pt"),
        ("dir/Bad-v2", 2, 1.0, "Embedding:dir/Bad-v2.safetensors"),
        ("v1.5", 1, 1.0, "embedding:v1.5"),
        ("no", 0, 1.0, "embedding:no"),
    ]
    assert codes(parsed) == [("unknown-embedding", "embedding:no")]
    assert "".join(item.text for item in parsed if isinstance(item, Words)) == ", .  !"


@pytest.mark.parametrize(
    ("prompt", "warnings"),
    [
        ("(a) ((b:1.2)", [("unclosed-bracket", "(")]),
        ("(a) ((b:1.2) c", [("unclosed-bracket", "("), ("weights-disabled", "((b:1.2) c")]),
        ("(a b", [("unclosed-bracket", "(")]),
        ("(a) (b", [("unclosed-bracket", "(")]),
        ("a)", [("stray-bracket", ")")]),
        ("(a 16:9) (b:5) ()", [("weight-from-ratio", "16:9"), ("weight-out-of-range", ":5"), ("empty-group", "()")]),
        ("((((((((a))))))))", [("weight-out-of-range", "a")]),
        (r"\[a\]", [("leftover-escape", r"\["), ("leftover-escape", r"\]")]),
        ("a BREAK b", [("break-is-text", "BREAK")]),
        ("TAKE A BREAK NOW", []),
        ("[a:b:.5] [c|d]", [("foreign-syntax", "[a:b:.5]")]),
        ("[c|d] [a:b]", [("foreign-syntax", "[c|d]")]),
        ("[night:-1]", [("foreign-syntax", "[night:-1]")]),  # a schedule, and no weight that went wrong
        ("a <lora:x:1> b", [("foreign-syntax", "<lora:x:1>")]),
        ("a (fox)1.3", [("foreign-syntax", "(fox)1.3")]),
    ],
)
def test_warnings_of_comfy(prompt: str, warnings: list[tuple[str, str]]) -> None:
    assert codes(parse(prompt, "comfy")) == warnings


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ('a "red fox"1.5 b', [("a", 1.0), ("red fox", 1.5), ("b", 1.0)]),
        ('"a (b)++ c"-', [("a", 0.9), ("b", 1.089), ("c", 0.9)]),
        ("cat.attend(1.3) (a b).attend(--)", [("cat", 1.3), ("a b", 0.81)]),
        ("cat++dog", [("cat", 1.21), ("dog", 1.0)]),
        ("cat+- dog", [("cat", 1.1), ("- dog", 1.0)]),
        ("(a).5 (b)2 (c)1.", [("a", 0.5), ("b", 2.0), ("c", 1.0)]),
        ("(a) 1.3", [("a", 1.0), ("1.3", 1.0)]),
        ("a -b - c --d e--f", [("a -b - c --d", 1.0), ("e", 0.81), ("f", 1.0)]),
        ("red(cat)++ e.g.++ a=b++", [("red(cat)++ e.g.++ a=b++", 1.0)]),  # marks count where a word starts
        ("x,(cat)++", [("x,", 1.0), ("cat", 1.21)]),
        (r"C\+\+ \(x\)++ \"y\"", [("C++", 1.0), ("(x)", 1.21), ('"y"', 1.0)]),
        ("(a - b)++", [("(a - b)++", 1.0)]),
        ("(a (b)2 = c)++ d+", [("(a", 1.0), ("b", 2.0), ("= c)++", 1.0), ("d", 1.1)]),
        ("(a dog++", [("(a", 1.0), ("dog", 1.21)]),
        ('5" nail and "a\nb" (c "d e" f)2', [('5" nail and "a\nb"', 1.0), ("c", 2.0), ("d e", 2.0), ("f", 2.0)]),
        ('"a (b" c)+', [('"a (b" c)+', 1.0)]),
        ("", []),
    ],
)
def test_compel(prompt: str, expected: list[Piece]) -> None:
    got = [piece for piece in pieces(parse(prompt, "compel").items) if piece[0]]
    assert [text for text, _ in got] == [text for text, _ in expected]
    assert [weight for _, weight in got] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize(
    ("prompt", "how", "weights", "texts"),
    [
        ('("a cat++", "b - c").and()', "concatenate", [1, 1], ["a", "cat", "b - c"]),
        ('("a", (b c), d).and(1, 0.5, 2)', "concatenate", [1, 0.5, 2], ["a", "b c", "d"]),
        ('("a", "b").add(1, -0.5)', "concatenate", [1, -0.5], ["a", "b"]),
        ('("a", "b").blend(.7, .3)', "blend", [0.7, 0.3], ["a", "b"]),
        ('("a", "b").blend(.7, .3, no_normalize)', "sum", [0.7, 0.3], ["a", "b"]),
        ('withLora(x, .5) ("a", "b").blend(1, 1) useLora(y)', "blend", [1, 1], ["a", "b"]),
    ],
)
def test_compel_puts_prompts_together(prompt: str, how: str, weights: list[float], texts: list[str]) -> None:
    items = parse(prompt, "compel").items
    parts = [item for item in items if isinstance(item, Compose)]
    assert [part.weight for part in parts] == weights
    assert {part.how for part in parts} == {how}
    assert [text for text, _ in pieces(items)] == texts
    if "Lora" in prompt:
        assert [(item.name, item.weight) for item in items if isinstance(item, Adapter)] == [("x", 0.5), ("y", 1.0)]


def test_compel_swap() -> None:
    prompt = 'a cat.swap(dog, s_end=.3) (in "a" hat+).swap("on a mat") x'
    items = parse(prompt, "compel").items
    word, group = [item for item in items if isinstance(item, Swap)]
    assert (pieces(word.original), pieces(word.edited)) == ([("cat", 1.0)], [("dog", 1.0)])
    assert word.options == (("s_end", 0.3),)
    assert prompt[word.start : word.end] == "cat.swap(dog, s_end=.3)"
    assert [text for text, _ in pieces(group.original)] == ["in", "a", "", "hat"]
    assert pieces(group.edited) == [("on a mat", 1.0)]
    assert group.items == group.original
    assert [text for text, _ in pieces(items)] == ["a", "", "x"]
    assert parse(prompt, "compel").warnings == ()


@pytest.mark.parametrize(
    ("prompt", "call"),
    [
        ('("a", "b").blend(1)', None),
        ('("a", "b").blend(1, x)', None),
        ('("a", "b").and(1, 2, no_normalize)', None),
        ('("a b", c d).and()', None),
        ('("a", "b").and() and more', '("a", "b").and()'),
        ('x ("a", "b").blend(1, 1)', '("a", "b").blend(1, 1)'),
        ('("a", "b.swap(c)").blend(1, 1)', None),
        ('("a", "b").and(', None),
        ('("a", ', ""),
        ("cat.swap(dog", "cat.swap("),
        ("cat.swap(dog, s_end=x)", None),
        ("cat.swap()", None),
        ("cat.attend(x)", ".attend(x)"),
        ("(cat).attend(x)", None),
        ("withLora(x, y)", "withLora("),
        ("withLora( )", "withLora("),
    ],
)
def test_malformed_calls_are_text(prompt: str, call: str | None) -> None:
    parsed = parse(prompt, "compel")
    assert "".join(item.text for item in parsed if isinstance(item, Words)) == prompt
    assert [passage for code, passage in codes(parsed) if code == "bad-call"] == (
        [call or prompt] if call != "" else []
    )


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ('("a", "b").blend(1, -1)', ["blend-not-normalised"]),
        ('("a", "b").blend(0, 0)', ["blend-not-normalised"]),
        ('("a", "b").blend(1, -1, no_normalize)', []),
        ('("a", "b").blend(1, 1)', []),
    ],
)
def test_a_blend_that_adds_up_to_0_is_told_not_to_be_normalised(prompt: str, told: list[str]) -> None:
    parsed = parse(prompt, "compel")
    assert [found.code for found in parsed.warnings] == told
    assert all(prompt[found.start : found.end] == ".blend" + prompt.partition(".blend")[2] for found in parsed.warnings)


def test_no_swap_stands_in_another() -> None:
    parsed = parse("(a.swap(b) c).swap(d)", "compel")
    (swap,) = parsed.items
    assert isinstance(swap, Swap)
    assert pieces(swap.original) == [("a.swap(b) c", 1.0)]
    assert codes(parsed) == [("bad-call", "a.swap(b)")]


@pytest.mark.parametrize(
    ("prompt", "warnings"),
    [
        ("(a b) (c", [("unclosed-bracket", "(")]),
        ("a) b", [("stray-bracket", ")")]),
        ("(a - b)++", [("bad-group", "(")]),
        (
            "Disney+ C++ 18+ fox+",
            [("weight-from-suffix", "+"), ("weight-from-suffix", "++"), ("weight-from-suffix", "+")],
        ),
        ("(a)3 ((b)2)2", [("weight-out-of-range", "3"), ("weight-out-of-range", "b")]),
        ("() ( )2", [("empty-group", "()"), ("empty-group", "( )2")]),
        ("(a:1.2) b (c:.5)", [("foreign-syntax", ":1.2"), ("foreign-syntax", ":.5")]),
        ("a <lora:x:1> [b:c:5] BREAK d", ["<lora:x:1>", "[b:c:5]", "BREAK"]),
        ("[a:1.5]", [("bracket-number", ":1.5")]),
        (r"\[a", [("leftover-escape", r"\[")]),
        ("a embedding:x b", [("foreign-syntax", "embedding:x")]),
    ],
)
def test_warnings_of_compel(prompt: str, warnings: list[Any]) -> None:
    found = codes(parse(prompt, "compel"))
    assert found == warnings or [passage for _, passage in found] == warnings


@pytest.mark.parametrize(
    ("prompt", "dialect", "reason"),
    [
        ("a red fox (in a box)", "plain", "nothing in it looks like syntax"),
        ("a (red:1.3) fox", "a1111", "(red:1.3) is A1111 syntax"),
        ("a (red:1.3) fox, embedding:bad", "comfy", "embedding:bad is ComfyUI syntax"),
        ("a fox++", "compel", "fox++ is compel syntax"),
        ("a fox++ (red)1.3 (b:1.2)", "compel", "fox++ is compel syntax"),
        ("a fox++ [a:b:5] (b:1.2)", "a1111", "[a:b:5] is A1111 syntax"),
        ("<lora:" + "x" * 50 + ":1>", "a1111", "<lora:xxxxxxxxxxxxxxxxxxxxxxx… is A1111 syntax"),
    ],
)
def test_the_dialect_is_guessed_and_said_why(prompt: str, dialect: str, reason: str) -> None:
    assert (detect(prompt).dialect, detect(prompt).reason) == (dialect, reason)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "unit",
    [
        *(
            "(",
            ")",
            "()",
            "[",
            "[(",
            "([)]",
            "(a",
            "a)",
            "[:|",
            "[a:1]",
            "[a:b:",
            "\\",
            "\\(",
            " ",
            "9",
            "(9",
            "(:",
            ":1)",
        ),
        *(
            "BREAK ",
            "AND ",
            "a AND b:1 ",
            "<a:",
            "<a:>",
            "embedding:",
            "a+",
            "+-",
            "(+",
            '"',
            '" ',
            '"(',
            '( "',
            '\n"(',
        ),
        *(
            "a.swap(",
            'a.swap("',
            "a.swap(b)",
            ").and(",
            "withLora(",
            "withLora(x,",
            '("a","b").and(',
            "(a)1",
            "(a=",
            ".attend(",
        ),
    ],
)
def test_hostile_text_is_read_in_linear_time(dialect: str, unit: str) -> None:
    prompt = (unit * 40_000)[:40_000]
    began = time.process_time()
    parse(prompt, dialect)
    assert time.process_time() - began < 2  # takes 0.1 s; what is quadratic takes minutes


GUIDE = Path(__file__).parents[3] / "docs" / "prompt-language.md"


def test_the_examples_of_the_guide_are_true() -> None:
    import doctest

    failed, tried = doctest.testfile(str(GUIDE), module_relative=False, encoding="utf-8")
    assert tried > 30
    assert failed == 0


@pytest.mark.parametrize(
    ("tag", "weights"),
    [
        ("<lora:x>", (1.0, None, None)),
        ("<lora:x:0.8>", (0.8, None, None)),
        ("<lora:x:0.8:0.5>", (0.8, 0.5, None)),
        ("<lora:x:1:1:unet=0.3>", (1.0, 0.3, None)),
        ("<lora:x:0.7:te=0.5>", (0.5, None, None)),  # a name wins over a place
        ("<lora:x:te=0.8:unet=0.5>", (0.8, 0.5, None)),
        ("<lora:x:unet=.5>", (1.0, 0.5, None)),
        ("<lora:x:te=-1>", (-1.0, None, None)),
        ("<lora:x:1e-1>", (0.1, None, None)),
        ("<lora:x: 0.5 >", (0.5, None, None)),
    ],
)
def test_all_fields_of_a_tag_are_read_by_place_and_by_name(tag: str, weights: tuple[float | None, ...]) -> None:
    parsed = parse(tag, "a1111")
    (item,) = parsed.items
    assert isinstance(item, Adapter)
    assert (item.weight, item.unet_weight, item.dyn) == weights
    assert not parsed.warnings


@pytest.mark.parametrize(
    ("tag", "weights", "warnings"),
    [
        ("<lora:x:0.8:much>", (0.8, None, None), [("bad-weight", ":much")]),
        ("<lora:x:much:0.5>", (1.0, 0.5, None), [("bad-weight", ":much")]),
        ("<lora:x:te=a:unet=0.3>", (1.0, 0.3, None), [("bad-weight", ":te=a")]),
        ("<lora:x:nan>", (1.0, None, None), [("bad-weight", ":nan")]),
        ("<lora:x:te=0.5:0.7>", (0.5, None, None), [("tag-field-unused", "0.7")]),
        ("<lora:x:1:foo=2>", (1.0, None, None), [("tag-field-unused", "foo=2")]),
        ("<lora:x:0.8:0.8:4>", (0.8, None, 4), [("tag-field-unused", "4")]),
        ("<lora:x:dyn=8>", (1.0, None, 8), [("tag-field-unused", "dyn=8")]),
        ("<lora:x:dyn=1.5>", (1.0, None, None), [("bad-weight", ":dyn=1.5")]),
        ("<lora:x:1:1:1:1>", (1.0, None, 1), [("tag-field-unused", "1"), ("tag-field-unused", "1")]),
    ],
)
def test_one_bad_field_of_a_tag_loses_no_good_one_and_is_told(
    tag: str, weights: tuple[float | None, ...], warnings: list[tuple[str, str]]
) -> None:
    parsed = parse(tag, "a1111")
    (item,) = parsed.items
    assert isinstance(item, Adapter)
    assert (item.weight, item.unet_weight, item.dyn) == weights
    assert codes(parsed) == warnings
