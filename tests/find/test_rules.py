from __future__ import annotations

from pathlib import Path

import pytest

from clipcond.errors import DataError, ResourceMissing
from clipcond.find.gallery import Gallery
from clipcond.find.rules import Rule, calibrate, probabilities, read_rules, read_verdicts, rules_text, screen

RED = Rule(
    name="red thing", for_=("a red circle", "a red star"), against=("a blue circle", "a green square", "a yellow star")
)


def test_a_rule_names_the_pictures_it_is_about(pictures: Gallery) -> None:
    found = screen(pictures, [RED])
    assert [bool(each.flagged) for each in found.pictures] == [
        each.path.parent.name == "red" for each in found.pictures
    ]
    verdicts = {each.path.parent.name: each.verdicts[0] for each in found.pictures}
    assert verdicts["red"].because in RED.for_
    assert verdicts["blue"].because == "a blue circle"


def test_more_prompts_of_one_side_do_not_make_it_likelier(pictures: Gallery) -> None:
    twice = Rule(name="x", for_=RED.for_ * 3, against=RED.against)
    assert probabilities(pictures, twice) == pytest.approx(probabilities(pictures, RED))


def test_rules_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    odd = Rule(name='a "b"\\ü', for_=("x\ny",), against=("z",), threshold=0.25)
    path.write_text(rules_text([RED, odd]), encoding="utf-8")
    assert read_rules(path) == (RED, odd)
    json = tmp_path / "rules.json"
    json.write_text('[{"name": "a", "for": "b", "against": ["c"]}]', encoding="utf-8")
    assert read_rules(json) == (Rule(name="a", for_=("b",), against=("c",)),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rules"),
        ("[[rule]]\nfor = ['a']\nagainst = ['b']", "rule 1 has no name"),
        ("[[rule]]\nname = 'x'\nagainst = ['b']", "rule 'x' has no prompts 'for'"),
        ("[[rule]]\nname = 'x'\nfor = ['a']\nagainst = []", "rule 'x' has no prompts 'against'"),
        (
            "[[rule]]\nname = 'x'\nfor = ['a']\nagainst = ['b']\nthreshold = 2",
            "threshold is 2; expected a number from 0",
        ),
        ("[[rule]]\nname = 'x'\nfor = ['a']\nagainst = ['b']\nlimit = 2", "unknown key 'limit'"),
        ("[[rule]\n", "cannot be read"),
    ],
)
def test_a_rule_that_will_not_do_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as raised:
        read_rules(path)
    assert "\n" not in str(raised.value)


def test_missing_rules_say_the_form(tmp_path: Path) -> None:
    with pytest.raises(ResourceMissing, match=r"no rules at .*; expected \[\[rule\]\] with name"):
        read_rules(tmp_path / "none.toml")


def test_thresholds_from_examples(pictures: Gallery, sorted_pictures: Path) -> None:
    table = sorted_pictures / "verdicts.csv"
    lines = [f"{path.parent.name}/{path.name},{int(path.parent.name == 'red')}" for path in pictures.paths]
    table.write_text("\n".join(["image,Red thing", *lines]), encoding="utf-8")
    truth = read_verdicts(table, [RED], pictures.paths)
    table.unlink()
    ((rule, found),) = calibrate(pictures, [RED], truth, precision=1.0)
    assert found.recall.value == 1.0
    assert found.recall.low < 0.5  # three examples say little
    likely = probabilities(pictures, RED)
    assert sorted(likely)[-4] < rule.threshold <= sorted(likely)[-3]


def test_a_verdict_that_is_neither_yes_nor_no(pictures: Gallery, tmp_path: Path) -> None:
    table = tmp_path / "v.csv"
    table.write_text("image,red thing\na.png,perhaps\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 2: 'perhaps' for red thing; expected 1 or 0"):
        read_verdicts(table, [RED], pictures.paths)
    table.write_text("image,other\na.png,1\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column for the rule red thing"):
        read_verdicts(table, [RED], pictures.paths)
