from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipcond.errors import DataError, ResourceMissing
from clipcond.find.labels import TEMPLATE_SETS, Templates, labels_of, read_labels, read_templates

PLAIN = Templates(name="none", sentences=("{}",))
PHOTO = Templates(name="two", sentences=("a photo of a {}.", "{} here"))


@pytest.mark.parametrize("name", TEMPLATE_SETS)
def test_every_shipped_set_has_a_place_for_the_label(name: str) -> None:
    sentences = read_templates(name).sentences
    assert sentences
    assert all("{}" in sentence for sentence in sentences)
    assert len(set(sentences)) == len(sentences)


def test_the_sets_of_imagenet_are_those_of_open_clip() -> None:
    from clipcond.runtime.torchvision_repair import repair

    repair()
    from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    for name, theirs in (("imagenet80", OPENAI_IMAGENET_TEMPLATES), ("imagenet7", SIMPLE_IMAGENET_TEMPLATES)):
        assert read_templates(name).filled("fox") == tuple(template("fox") for template in theirs)


def test_braces_in_a_label_are_letters() -> None:
    assert PHOTO.filled("{0} {}") == ("a photo of a {0} {}.", "{0} {} here")


def test_a_file_of_templates(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a {} in oil\n\n", encoding="utf-8")
    assert read_templates(str(tmp_path / "mine.txt")).sentences == ("a {} in oil",)
    (tmp_path / "bad.txt").write_text("a fox in oil\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"bad\.txt: 'a fox in oil' has no \{\} where the label goes"):
        read_templates(str(tmp_path / "bad.txt"))
    with pytest.raises(ResourceMissing, match="no templates 'photos'; expected none, photo,"):
        read_templates("photos")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.txt", "\ufefffox\n\n dog \n"),
        ("labels.json", '["fox", "dog"]'),
        ("labels.csv", "label\nfox\ndog\n"),
        ("labels.jsonl", '{"label": "fox"}\n{"label": "dog"}\n'),
    ],
)
def test_names_in_every_form_go_through_the_templates(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / name, PHOTO) == labels_of(("fox", "dog"), PHOTO)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.json", json.dumps({"fox": ["a red animal", "a sly animal"], "dog": "a loyal animal"})),
        ("labels.csv", "label,description\nfox,a red animal\nfox,a sly animal\ndog,a loyal animal\n"),
    ],
)
def test_described_labels_stand_for_their_sentences(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    fox, dog = read_labels(tmp_path / name, PHOTO)
    assert (fox.name, fox.texts) == ("fox", ("a red animal", "a sly animal"))
    assert (dog.name, dog.texts) == ("dog", ("a loyal animal",))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[1]", "expected a list of labels"),
        ("a.json", "{", "is no JSON"),
        ("a.json", '{"fox": []}', "'fox': expected a sentence"),
        ("a.json", '["fox", "fox"]', "the label 'fox' is there twice"),
        ("a.json", '["fox", " "]', "label 2 is empty"),
        ("a.txt", "\n", "holds no labels"),
        ("a.csv", "x\ny\n", "has no column for the label"),
    ],
)
def test_a_file_that_will_not_do_is_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as raised:
        read_labels(tmp_path / name, PLAIN)
    assert "\n" not in str(raised.value)
    assert name in str(raised.value)
