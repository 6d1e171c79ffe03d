"""The job of `clipcond tokens`, without a terminal or a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipcond.errors import DataError, OptionsError, ResourceMissing
from clipcond.prompt.plan import plan
from clipcond.workflows.events import Event, Note, ignore
from clipcond.workflows.tokens import TokenCounter, TokensOptions, read_prompts


def counter(events: list[Event], **options: Any) -> TokenCounter:
    return TokenCounter(TokensOptions(**options), events.append)


def test_a_column_for_each_dialect_and_a_plan_for_each_family() -> None:
    counted = counter([], prompt="a (red:1.3) fox", family="all", compare="a1111").count("a (red:1.3) fox")
    assert [{plan.dialect for plan in column} for column in counted.columns] == [{"plain"}, {"a1111"}]
    assert len({plan.family for plan in counted.columns[0]}) == len(counted.columns[0]) > 2
    assert len(counted.analyses()) == 2
    assert not counted.truncated


def test_auto_is_noted_for_one_prompt_and_not_for_each_line(tmp_path: Path) -> None:
    events: list[Event] = []
    reason = "dialect a1111: (red:1.3) is A1111 syntax"
    counted = counter(events, prompt="x", dialect="auto").count("a (red:1.3) fox")
    assert (counted.dialect_reason, events) == (reason, [Note(reason)])
    (tmp_path / "prompts.txt").write_text("a (red:1.3) fox\na fox\n")
    events.clear()
    lines = list(counter(events, file=tmp_path / "prompts.txt", dialect="auto").count_lines())
    assert [line.columns[0][0].dialect for line in lines] == ["a1111", "plain"]
    assert events == []


def test_embeddings_are_looked_for_once_with_notes(tmp_path: Path) -> None:
    events: list[Event] = []
    (tmp_path / "bad.safetensors").write_text("no tensors")
    once = counter(events, prompt="x", embeddings=tmp_path)
    once.count("a fox")
    once.count("a bird")
    texts = [event.text for event in events if isinstance(event, Note)]
    assert len(texts) == 2
    assert texts[0].startswith(str(tmp_path / "bad.safetensors"))
    assert texts[1] == f"{tmp_path}: no embeddings there"


def test_the_document_is_that_of_the_plan_unless_several_are_asked_for() -> None:
    one = counter([], prompt="a fox")
    assert one.document(one.count("a fox")) == plan("a fox").to_json()
    several = counter([], prompt="a fox", compare="a1111")
    document = several.document(several.count("a fox"))
    assert document == {
        "prompt": "a fox",
        "plans": [plan("a fox").to_json(), plan("a fox", dialect="a1111").to_json()],
    }


def test_a_collection_is_surveyed_in_its_dialect(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a fox\n" + "fox " * 80 + "\n")
    survey = counter([], file=tmp_path / "prompts.txt", dialect="a1111", stats=True).survey()
    assert (survey.prompts, survey.over, survey.dialect) == (2, 1, "a1111")


def test_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa fox\r\n\nlast".encode())
    assert list(read_prompts(file)) == ["a fox", "", "last"]
    file.write_bytes(b"a fox\n\xff")
    with pytest.raises(DataError, match="line 2 is not UTF-8"):
        list(read_prompts(file))
    with pytest.raises(ResourceMissing, match=r"none\.txt: no such file; give a text file with a prompt per line"):
        list(read_prompts(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either a PROMPT or --file FILE"),
        ({"prompt": "x", "file": Path("f")}, "give either a PROMPT or --file FILE"),
        ({"prompt": "x", "stats": True}, "--stats needs --file FILE"),
        ({"file": Path("f"), "stats": True, "compare": "a1111"}, "--stats counts one dialect"),
        ({"file": Path("f"), "explain": True}, "--explain is about one PROMPT"),
        ({"prompt": "x", "chunking": "soft"}, "--chunking soft does not exist"),
        ({"prompt": "x", "compare": "plain"}, "--compare plain is the same as --dialect plain"),
    ],
)
def test_options_that_contradict_one_another(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        TokensOptions(**options)
    with pytest.raises(OptionsError, match="give --file FILE"):
        counter([], prompt="x").survey()


def test_the_families_that_repeat_are_those_of_the_conditioner() -> None:
    from clipcond.condition.families import LAYOUTS
    from clipcond.prompt.families import FAMILIES
    from clipcond.workflows.tokens import REPEATED

    conditioned = [name for name in FAMILIES if name in LAYOUTS]
    assert {name for name in conditioned if LAYOUTS[name].lengths == "lcm"} == set(REPEATED)
    assert {LAYOUTS[name].lengths for name in conditioned if name not in REPEATED} == {"pad_empty"}


def test_the_common_length_is_that_of_the_conditioner_for_parts_and_joined_prompts() -> None:
    parts = TokenCounter(TokensOptions(prompt="", dialect="a1111", negative_prompt="x " * 100), ignore)
    counted = parts.count("a AND " + "b " * 160)
    assert counted.common_chunks() == {"sd15": {"clip_l": 6}}  # parts of 1 and 3 chunks, the other side of 2
    joined = TokenCounter(TokensOptions(prompt="", dialect="compel", negative_prompt="x"), ignore)
    assert joined.count('("a", "b").and()').common_chunks() == {"sd15": {"clip_l": 2}}


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a POSIX system")
def test_a_line_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(DataError, match=r"line 1 is over 16 MiB long; expected a prompt"):
        list(read_prompts(Path("/dev/zero")))
