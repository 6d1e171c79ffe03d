"""Templates: what each mark does, that chance is the same everywhere, and that expansion always ends."""

import hashlib
import os
import time
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipcond.errors import ConfigError, ResourceMissing
from clipcond.prompt import wildcard_lists
from clipcond.prompt.draws import Draw
from clipcond.prompt.templates import MAX_DEPTH, summed_odds
from clipcond.prompt.wildcards import MAX_LENGTH, expand
from clipcond.resources import bundled

SHIPPED = bundled("prompts", "wildcards/colours.txt").parent
GOLDEN = ("c e g d i", "c e f d i", "c e f d g i")
DIGEST = "5527da4d4ee66fa26f2204ea76f4a9c8eab9e3a40628c065438da07326976ad1"
soup = st.text(alphabet="ab1{}|$_:=?!#%\\ ./*-\n", max_size=50)


def every(template, **options):
    return list(expand(template, combinatorial=True, **options).prompts)


def codes(template, **options):
    return [(one.code, one.start, one.end) for one in expand(template, **options).warnings]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "animals").mkdir()
    for name, lines in {
        "c": "red\n0::blue\n\n# a comment\n  green  \n",
        "animals/cat": "tabby\npersian",
        "animals/dog": "\ufeffpug",
        "nested": "a {b|__c__}",
        "cycle": "x __loop__",
        "loop": "__cycle__",
        "self": "__self__ y",
        "empty": "# nothing\n",
        "broken": "a {b",
        "Übung": "ü",
    }.items():
        (tmp_path / f"{name}.txt").write_text(lines, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("template", "prompts"),
    [
        ("", [""]),
        ("a [b|c] (d:1.2) | {e}", ["a [b|c] (d:1.2) | e"]),
        ("{a|b} {c|d}", ["a c", "a d", "b c", "b d"]),
        ("{ a | b\n}!", ["a!", "b!"]),
        ("{a|}x", ["ax", "x"]),
        ("{}x{|}", ["x"]),
        ("{a|{b|c}}", ["a", "b", "c"]),
        ("{0.7::a|0::b|.5::c|2.::d}", ["a", "b", "c", "d"]),
        ("{a|a|b}", ["a", "b"]),
        ("{2$$a|b|c}", ["a,b", "a,c", "b,a", "b,c", "c,a", "c,b"]),
        ("{1-2$$ and $$a|b}", ["a", "b", "a and b", "b and a"]),
        ("{2-1$$a|b}", ["a", "b", "a,b", "b,a"]),
        ("{2-$$$$a|b}", ["ab", "ba"]),
        ("{-2$$a|b}", ["a", "b", "a,b", "b,a"]),
        ("{0$$a|b}", [""]),
        ("{9$$a|b}", ["a,b", "b,a"]),
        ("{2$$0.5::a|b}", ["a,b", "b,a"]),
        ("{2$$__animals/cat__}", ["tabby,persian", "persian,tabby"]),
        ("{2$$__animals/dog__|x}", ["pug,x", "x,pug"]),
        ("a $5 {b$$c|d}", ["a $5 b$$c", "a $5 d"]),
        ("__c__", ["red", "blue", "green"]),
        ("__C__ __ÜBUNG__", ["red ü", "blue ü", "green ü"]),
        ("__animals/cat__", ["tabby", "persian"]),
        ("__animals/*__", ["tabby", "persian", "pug"]),
        ("__**/d*g__", ["pug"]),
        ("__an*als/**__", ["tabby", "persian", "pug"]),
        ("__nested__", ["a b", "a red", "a blue", "a green"]),
        ("${v={a|b}}${v} ${v}", ["a a", "a b", "b a", "b b"]),
        ("${v=!{a|b}}${v} ${v}", ["a a", "b b"]),
        ("${v=a}${v?=b}${w?=c}${v}${w}", ["ac"]),
        ("${v?=!{a|b}}${v}${v}", ["aa", "bb"]),
        ("${v:{a|b}} ${v:c d}", ["a c d", "b c d"]),
        ("${v=a|b}${v}", ["a|b"]),
        ("a # b {c|d}\ne", ["a\ne"]),
        ("# all of it\na\n  # and this\nb #", ["a\nb"]),
        ("shot #3, #tag, C#", ["shot #3, #tag, C#"]),
        (r"\{a|b\} \__c\__ \# {a\|b} x\|y \\", [r"{a|b} __c__ # a|b x\|y \\"]),
        (r"\\{a|b} \(c\)", [r"\\a \(c\)", r"\\b \(c\)"]),
        ("snake_case __ x ____ 100% _", ["snake_case __ x ____ 100% _"]),
    ],
)
def test_every_combination(template, prompts, folder):
    expansion = expand(template, combinatorial=True, folders=[folder])
    assert list(expansion.prompts) == prompts
    assert expansion.warnings == ()
    assert {*expand(template, count=20, folders=[folder]).prompts} <= {*prompts}


@pytest.mark.parametrize(
    ("template", "prompt", "code", "start", "end"),
    [
        ("a __nope__", "a __nope__", "unknown-wildcard", 2, 10),
        ("__nope/*__", "__nope/*__", "unknown-wildcard", 0, 10),
        ("__../c__", "__../c__", "unknown-wildcard", 0, 8),
        ("{__nope__|__nope__}", "__nope__", "unknown-wildcard", 1, 9),
        ("__empty__", "__empty__", "empty-wildcard", 0, 9),
        ("a __cycle__", "a x __cycle__", "cyclic-wildcard", 2, 11),
        ("__self__", "__self__ y", "cyclic-wildcard", 0, 8),
        ("__broken__", "a {b", "unclosed-brace", 0, 10),
        ("a {b|c", "a {b|c", "unclosed-brace", 2, 3),
        ("${v=b", "${v=b", "unclosed-brace", 0, 4),
        ("a} b", "a} b", "stray-brace", 1, 2),
        ("${v} b", "${v} b", "unknown-variable", 0, 4),
        ("${v=${v}}${v}", "${v}", "unknown-variable", 9, 13),
        ("%{a … $$b}", "%{a … $$b}", "unsupported-wrap", 0, 10),
    ],
)
def test_what_has_no_meaning_stays_and_is_said(template, prompt, code, start, end, folder):
    expansion = expand(template, folders=[folder])
    assert expansion.prompts == (prompt,)
    assert next((one.code, one.start, one.end) for one in expansion.warnings) == (code, start, end)
    assert {one.code for one in expand(template, folders=[folder], combinatorial=True).warnings} == {code}


def test_messages_help(folder):
    def message(template):
        return expand(template, folders=[folder]).warnings[0].message

    assert message("__colour__") == "there is no list 'colour'; did you mean 'colours'?"
    assert message("__xxxxxxxx__") == "there is no list 'xxxxxxxx'"
    assert message("__cycle__") == "the list 'cycle' leads back to itself: cycle → loop"
    assert message("__broken__") == "in the list 'broken': this brace is never closed and stays text"


def test_a_list_that_cannot_be_read_is_a_warning(folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    expansion = expand("a __c__", folders=[folder])
    assert expansion.prompts == ("a __c__",)
    assert [one.message for one in expansion.warnings] == ["the list 'c' cannot be read: Permission denied"]


def test_the_first_folder_that_has_a_name_wins(tmp_path, folder):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "c.txt").write_text("mauve")
    (tmp_path / "own" / "colours.txt").write_text("taupe")
    (tmp_path / "own" / ".hidden.txt").write_text("no")
    assert every("__c__ __colours__", folders=[tmp_path / "own", folder]) == ["mauve taupe"]
    assert every("__animals/dog__", folders=[str(tmp_path / "own"), str(folder)]) == ["pug"]
    assert codes("__.hidden__", folders=[tmp_path / "own"]) == [("unknown-wildcard", 0, 11)]


def test_a_changed_list_is_read_again(tmp_path):
    (tmp_path / "x.txt").write_text("old")
    assert every("__x__", folders=[tmp_path]) == ["old"]
    (tmp_path / "x.txt").write_text("newer")
    assert every("__x__", folders=[tmp_path]) == ["newer"]


def test_bytes_that_are_no_text_do_not_stop_a_list(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"caf\xe9")
    assert every("__x__", folders=[tmp_path]) == ["caf\ufffd"]


def test_wrong_arguments(tmp_path):
    with pytest.raises(ResourceMissing, match="no such folder; give one with wildcard lists"):
        expand("a", folders=[tmp_path / "none"])
    with pytest.raises(ConfigError, match="count -1: give a count of 0 or more"):
        expand("a", count=-1)
    with pytest.raises(ConfigError, match=r"limit 0: give .* a limit of 1 or more"):
        expand("a", limit=0)
    assert expand("a", count=0).prompts == ()


def test_chance_is_the_same_on_every_machine():
    template = "{a|b|3::c} {2-4$$ $$d|e|f|g} {0.2::h|i}"
    drawn = "\n".join(expand(template, seed=-7, count=200).prompts)
    assert expand(template, seed=42, count=3).prompts == GOLDEN
    assert hashlib.sha256(drawn.encode()).hexdigest() == DIGEST


def test_prompt_i_is_that_of_seed_plus_i():
    ten = expand("__scene__", seed=5, count=10).prompts
    assert len({*ten}) > 5
    assert [expand("__scene__", seed=5 + number).prompts[0] for number in range(10)] == list(ten)
    assert expand("{a|b|c|d|e|f|g|h}", seed=-3, count=20) != expand("{a|b|c|d|e|f|g|h}", seed=3, count=20)


def test_weights_are_odds():
    drawn = expand("{3::a|b|0::c}", count=4000).prompts
    assert 0.72 < drawn.count("a") / 4000 < 0.78
    assert "c" not in drawn
    assert {*expand("{0::a|0::b}", count=50).prompts} == {"a", "b"}
    assert {*expand("{2$$0::a|0::b|c}", count=50).prompts} >= {"c,a", "c,b"}


def test_the_limit_ends_what_explodes():
    expansion = expand("{a|b}" * 60, combinatorial=True, limit=5)
    assert len(expansion.prompts) == 5
    assert [one.code for one in expansion.warnings] == ["too-many"]
    assert expand("{a|a}" * 60, combinatorial=True, limit=5).prompts == ("a" * 60,)
    assert codes("{a|b}", combinatorial=True, limit=2) == []


def test_lists_that_double_one_another_end(tmp_path):
    for number in range(40):
        (tmp_path / f"l{number}.txt").write_text(f"__l{number + 1}__ __l{number + 1}__")
    (tmp_path / "l40.txt").write_text("lol")
    started = time.perf_counter()
    expansion = expand("__l0__", folders=[tmp_path])
    assert len(expansion.prompts[0]) < 2 * MAX_LENGTH
    assert ("too-long", 0, 6) in [(one.code, one.start, one.end) for one in expansion.warnings]
    assert time.perf_counter() - started < 20


def test_depth_is_bounded(tmp_path):
    for number in range(MAX_DEPTH + 20):
        (tmp_path / f"l{number}.txt").write_text(f"{number} __l{number + 1}__")
    assert ("too-deep", 0, 6) in codes("__l0__", folders=[tmp_path])
    deep = "{" * 300 + "a|b" + "}" * 300
    inner = "{" * (300 - MAX_DEPTH) + "a|b" + "}" * (300 - MAX_DEPTH)
    assert expand(deep).prompts == (inner,)
    assert codes(deep) == [("too-deep", MAX_DEPTH, MAX_DEPTH + 1)]


@pytest.mark.parametrize("soup", ["{", "}", "{a|", "__a", "_", "${v=", "%{", "\\", "# \n", "{}", "%{}", "${v}", " #"])
def test_long_soups_end(soup):
    started = time.perf_counter()
    expand(soup * 20_000)
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize("path", sorted(SHIPPED.rglob("*.txt")), ids=lambda path: path.stem)
def test_every_shipped_list_is_sound(path):
    name = path.relative_to(SHIPPED).with_suffix("").as_posix()
    lines = path.read_text("utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert len({*lines}) == len(lines)
    expansion = expand(f"__{name}__", combinatorial=True, limit=300)
    assert {one.code for one in expansion.warnings} <= ({"too-many"} if name == "scene" else set())
    assert len(expansion.prompts) >= 10
    assert not any(mark in prompt for prompt in expansion.prompts for mark in "_{}$#:()[]")


@pytest.mark.property
@given(soup, st.integers(), st.integers(1, 9))
@example("{a|${v=", 0, 1)
@example("%{__**__ # }", 0, 1)
def test_expansion_ends_within_the_limit(template, seed, limit):
    assert len(expand(template, seed=seed, count=limit).prompts) == limit
    assert 1 <= len(expand(template, combinatorial=True, limit=limit).prompts) <= limit


@pytest.mark.property
@given(st.text(alphabet="ab1{}|$:=?!%. \n", max_size=50), st.integers())
def test_what_is_left_of_the_syntax_was_warned_of(template, seed):
    expansion = expand(template, seed=seed)
    if "{" in expansion.prompts[0] or "}" in expansion.prompts[0]:
        assert expansion.warnings
    for one in expansion.warnings:
        assert 0 <= one.start < one.end <= len(template)


@pytest.mark.property
@given(st.text().filter(lambda text: not {*text} & {*"{}_#\\"}), st.integers())
def test_text_without_marks_stays_as_it_is(text, seed):
    assert expand(text, seed=seed) == expand(text, combinatorial=True)
    assert expand(text, seed=seed).prompts == (text,)
    assert expand(text).warnings == ()


@pytest.mark.property
@given(st.lists(st.lists(st.text("abc", max_size=2), min_size=1, max_size=3), max_size=4), st.integers())
def test_chance_draws_from_the_combinations(choices, seed):
    template = " ".join("{" + "|".join(options) + "}" for options in choices)
    assert {*expand(template, seed=seed, count=3).prompts} <= {*every(template)}


# any size


def timed(template, **options):
    """The expansion, and the seconds of this process that it took: other work on the machine does not count."""
    started = time.process_time()
    expansion = expand(template, **options)
    return expansion, time.process_time() - started


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    (folder / "big.txt").write_text("\n".join(f"entry {number}" for number in range(300_000)))
    (folder / "odds.txt").write_text("\n".join(f"0.{number % 9 + 1}::entry {number}" for number in range(300_000)))
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for number in range(3000):
        (folder / f"list number {number}.txt").write_text(f"{number} a\n2::{number} b\n" if number % 2 else f"{number}")
    return folder


@pytest.mark.parametrize(
    ("template", "prompts"),
    [
        ("{2$${red} cat|dog}", ["red cat,dog", "dog,red cat"]),
        ("{1-2$${big}|small}", ["big", "small", "big,small", "small,big"]),
        ("{2$$ and $${a}|b}", ["a and b", "b and a"]),
        ("{2$$${v:x}|b}", ["x,b", "b,x"]),
        ("{2$$0.5::{a}|b}", ["a,b", "b,a"]),
        (r"{2$$ \| $${a}|b}", ["a | b", "b | a"]),
        ("{2$$__animals/dog__ {x}|b}", ["pug x,b", "b,pug x"]),
    ],
)
def test_an_amount_before_an_alternative_that_starts_with_a_mark(template, prompts, folder):
    assert every(template, folders=[folder]) == prompts
    assert codes(template, folders=[folder]) == []


def test_an_unclosed_choice_keeps_its_amount():
    assert expand("{2$$ and $${a}|b").prompts == ("{2$$ and $$a|b",)


@pytest.mark.parametrize("options", [{"combinatorial": True, "limit": 10}, {"count": 100}, {"combinatorial": True}])
def test_two_thousand_alternatives_take_milliseconds(options):
    alternatives = "|".join(f"a{number}" for number in range(2000))
    expansion, seconds = timed("{" + alternatives + "}", **options)
    assert len(expansion.prompts) == options.get("limit", options.get("count", 1000))
    assert seconds < 1  # 10 to 30 ms


def test_combinations_of_two_out_of_two_thousand_come_in_their_order():
    expansion, seconds = timed(
        "{2$$" + "|".join(f"a{number}" for number in range(2000)) + "}", combinatorial=True, limit=2000
    )
    assert expansion.prompts[:2] == ("a0,a1", "a0,a2")
    assert expansion.prompts[1999] == "a1,a0"
    assert seconds < 2


@pytest.mark.parametrize("name", ["big", "odds"])
@pytest.mark.parametrize("options", [{}, {"count": 100}, {"combinatorial": True}])
@pytest.mark.parametrize("template", ["__{}__", "{{2$$__{}__}}", "{{1000000$$__{}__}}"])
def test_a_list_of_300_000_entries_is_drawn_from_in_time(template, options, name, large):
    expand(f"__{name}__", folders=[large])  # read once: a tenth of a second, with odds half of one
    template = template.format(name)
    expansion, seconds = timed(template, folders=[large], **({**options, "count": 3} if "00" in template else options))
    assert all(len(prompt) <= MAX_LENGTH + len(template) for prompt in expansion.prompts)
    assert seconds < 10


def test_what_is_added_to_a_prompt_keeps_to_the_stated_length(large):
    (prompt,), warnings = (found := expand("a {1000000$$__big__} b", folders=[large])).prompts, found.warnings
    assert len(prompt) == MAX_LENGTH + len("a  b") or MAX_LENGTH - 30_000 < len(prompt) < MAX_LENGTH
    assert prompt.endswith(" b")
    assert [(one.code, one.start, one.end) for one in warnings] == [("too-long", 2, 20)]
    long = "x" * (2 * MAX_LENGTH)
    assert expand(long).prompts == (long,)  # the user's own text is not cut
    assert len(expand("${a=" + long + "}${a}${a}").prompts[0]) == MAX_LENGTH - 2 + len("${a}")
    for template in ("${a=__no__ " + "y" * 5000 + "}" + "${a}" * 5000, "{3$$" + long + "|b|c}"):
        assert len(expand(template).prompts[0]) <= MAX_LENGTH + len(template)


def test_3000_lists_are_drawn_from_as_one(many):
    expansion, seconds = timed("__*__ __*__", folders=[many], count=1000)
    assert len({*expansion.prompts}) > 900
    assert seconds < 10  # a tenth of a second and the time to read 3,000 files
    first, seconds = timed("__list*__", folders=[many], combinatorial=True, limit=5000)
    assert (len(first.prompts), first.prompts[:3]) == (4500, ("0", "1 a", "1 b"))
    assert seconds < 5


def test_odds_hold_across_lists(tmp_path):
    (tmp_path / "x1.txt").write_text("8::a\n0::b")
    (tmp_path / "x2.txt").write_text("c\nd")
    drawn = expand("__x*__", folders=[tmp_path], count=2000).prompts
    assert 0.75 < drawn.count("a") / 2000 < 0.85
    assert drawn.count("b") == 0
    assert drawn.count("c") > 100 < drawn.count("d")


def test_lists_that_name_all_lists_end(tmp_path):
    for number in range(300):
        (tmp_path / f"l{number}.txt").write_text("x __*__ __*__\n3::y")
    expansion, seconds = timed("__*__", folders=[tmp_path], count=20)
    assert len(expansion.prompts) == 20
    assert seconds < 10
    (tmp_path / "q1.txt").write_text("one __q*__")
    (tmp_path / "q2.txt").write_text("two __q*__")
    assert {*every("__q*__", folders=[tmp_path])} == {"one two __q*__", "two one __q*__"}
    assert codes("__q*__", folders=[tmp_path]) == [("cyclic-wildcard", 0, 6)]


def test_500_misspelt_names_beside_3000_lists(many):
    template = " ".join(f"__lst numbr {number}x__" for number in range(500))
    expansion, seconds = timed(template, folders=[many])
    assert expansion.prompts == (template,)
    assert expansion.warnings[0].message == "there is no list 'lst numbr 0x'; did you mean 'list number 0'?"
    assert len(expansion.warnings) == 51
    assert "unknown-wildcard and more of the same" in {f"{one.code} {one.message}" for one in expansion.warnings}
    assert seconds < 5  # 0.2


def test_500_patterns_beside_3000_lists(many):
    expand("__*__", folders=[many])
    expansion, seconds = timed(" ".join(f"__*{number}__" for number in range(500)), folders=[many])
    assert expansion.warnings == ()
    assert seconds < 10  # 1


def test_prompts_that_explode_end_early():
    doubling = "".join(f"${{a{number + 1}=${{a{number}}}${{a{number}}}}}" for number in range(45))
    expansion, seconds = timed("${a0={b|c}}" + doubling + "${a45}", combinatorial=True)
    assert 1 <= len(expansion.prompts) < 1000
    assert {one.code for one in expansion.warnings} == {"too-long", "too-many"}
    assert seconds < 60  # 5


def test_a_list_that_is_no_file_or_too_large_is_a_warning(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "large.txt").write_text("0123456789")
    monkeypatch.setattr(wildcard_lists, "LARGEST_LIST", 9)
    messages = [one.message for one in expand("__pipe__ __large__", folders=[tmp_path]).warnings]
    assert messages == [
        "the list 'pipe' cannot be read: it is no regular file",
        "the list 'large' cannot be read: it has 10 bytes, more than 9",
    ]


@pytest.mark.property
@given(st.text(st.characters(), max_size=60), st.integers())
@example("{\ud800|__\udfff__}", 0)
@example("${\ud800=\udfff}", 0)
def test_no_template_of_any_code_points_raises(template, seed):
    assert len(expand(template, seed=seed).prompts) == 1
    expand(template, combinatorial=True, limit=3)


@pytest.mark.property
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.data())
def test_draws_are_those_of_a_list_whose_taken_entries_are_gone(odds, data):
    draw, left = Draw(summed_odds([float(each) for each in odds])), list(enumerate(odds))
    unit = draw.odds_left // max(sum(odds), 1)
    while left:
        assert (draw.left, draw.odds_left) == (len(left), unit * sum(each for _, each in left))
        place = data.draw(st.integers(0, len(left) - 1))
        assert draw.at_place(place) == left[place][0]
        if draw.odds_left:
            mark = data.draw(st.integers(0, draw.odds_left - 1))
            sums = list(accumulate(unit * each for _, each in left))
            assert draw.at_odds(mark) == left[bisect_right(sums, mark)][0]
        draw.take(left.pop(place)[0])
