"""The job of `clipcond evaluate`, and its command."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from clipcond.cli import main
from clipcond.errors import DataError
from clipcond.models.load import load_dual
from clipcond.workflows.evaluate import EvaluateOptions, run
from clipcond.workflows.evaluation_sets import read_set
from clipcond.workflows.events import Event, Finished, Note, Started


def coloured(folder: Path, number: int) -> Path:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    path = folder / f"{number}.png"
    Image.fromarray(draw).resize((32, 32)).save(path)
    return path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Eight pictures with captions, of which seven have a class; one picture has two rows."""
    rows = ["Image;Caption;Label"]
    for number in range(8):
        coloured(tmp_path, number)
        rows.append(f"{number}.png;picture {number};{('red', 'green', 'blue')[number % 3] if number < 7 else ''}")
    rows.append("./0.png;another caption;red")
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "pairs.csv"


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for number in range(6):
        coloured(tmp_path / "classes" / ("cat", "dog")[number % 2], number)
    return tmp_path / "classes"


def test_a_table_with_a_label_column_has_captions_and_classes(labelled: Path) -> None:
    of = read_set("domain", str(labelled))
    assert of.pairs is not None
    assert (len(of.pictures), of.classes) == (8, ("blue", "green", "red"))
    assert of.labels == ("red", "green", "blue", "red", "green", "blue", "red", "")


def test_a_table_without_captions_has_classes_alone(labelled: Path) -> None:
    table = labelled.with_name("classes.jsonl")
    table.write_text("".join(json.dumps({"file_name": f"{n}.png", "class": "ab"[n % 2]}) + "\n" for n in range(4)))
    of = read_set("domain", str(table))
    assert (of.pairs, of.labels) == (None, ("a", "b", "a", "b"))


def test_a_folder_of_class_folders_has_the_folders_names_as_classes(folders: Path) -> None:
    of = read_set("retention", str(folders))
    assert of.pairs is None
    assert of.labels == ("cat",) * 3 + ("dog",) * 3


def test_one_class_two_classes_of_a_picture_and_a_folder_of_nothing_are_refused(labelled: Path, tmp_path: Path) -> None:
    coloured(tmp_path / "one" / "cat", 1)
    coloured(tmp_path / "one" / "cat", 2)
    with pytest.raises(DataError, match="every picture is of the class 'cat'; zero-shot needs 2 or more"):
        read_set("domain", str(tmp_path / "one"))
    table = tmp_path / "classes.csv"
    table.write_text("image,label\n0.png,red\n1.png,blue\n0.png,blue\n")
    with pytest.raises(DataError, match=r"classes\.csv: 0\.png is of two classes, 'red' and 'blue'"):
        read_set("domain", str(table))
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"no file matches .*none"):
        read_set("domain", str(tmp_path / "none"))


def test_with_captions_classes_that_will_not_do_are_left_out_and_said(dual_folder: Path, labelled: Path) -> None:
    labelled.write_text(labelled.read_text().replace("another caption;red", "another caption;blue"))
    events: list[Event] = []
    found = run(EvaluateOptions(model=str(dual_folder), data=str(labelled)), events.append)
    assert Note(f"{labelled}: ./0.png is of two classes, 'red' and 'blue'; its classes are left out") in events
    assert "zero_shot" not in found.to_json()
    one = labelled.read_text().replace("blue", "red").replace("green", "red")
    labelled.write_text(one)
    assert read_set("domain", str(labelled)).classes == ()


def test_both_models_are_measured_on_both_sets_beside_chance(dual_folder: Path, labelled: Path, folders: Path) -> None:
    events: list[Event] = []
    options = EvaluateOptions(
        model=str(dual_folder), before=str(dual_folder), data=str(labelled), retention=str(folders)
    )
    found = run(options, events.append)
    rows = {(row.set, row.measure): row for row in found.rows()}
    assert all(row.before == row.after for row in rows.values()), "it is the same model"
    assert rows["domain", "image to text R@5"].chance == pytest.approx(
        np.mean([1 - 4 / 9 * 3 / 8] + [5 / 9] * 7), abs=1e-5
    )
    assert rows["domain", "text to image R@1"].chance == pytest.approx(1 / 8)
    assert rows["domain", "zero-shot accuracy"].chance == pytest.approx(1 / 3)
    assert rows["retention", "zero-shot accuracy"].chance == 0.5
    assert ("domain", "image to text R@10") not in rows
    document = found.to_json()
    assert document["zero_shot"]["pictures"] == 7
    assert document["before"]["retention"] == document["retention"]
    assert [event.task for event in events if isinstance(event, Started)][:3] == [
        f"reading {labelled}", f"reading {folders}", f"loading {dual_folder}",
    ]  # fmt: skip
    assert isinstance(events[-1], Finished)


def test_the_zero_shot_answer_is_the_nearest_class_and_templates_count(dual_folder: Path, folders: Path) -> None:
    dual = load_dual(str(dual_folder))
    of = read_set("domain", str(folders))
    from clipcond.train.pixels import prepare_all

    images = dual.image.embed_pixels(prepare_all(of.pictures, dual.image.preprocess)).numpy()
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    truth = np.array([of.classes.index(label) for label in of.labels])
    for name, sentences in {"none": ("{}",), "art": None}.items():
        from clipcond.find.labels import read_templates

        sentences = sentences or read_templates(name).sentences
        classes = []
        for label in of.classes:
            texts = dual.texts.embed([sentence.replace("{}", label) for sentence in sentences]).numpy()
            mean = (texts / np.linalg.norm(texts, axis=1, keepdims=True)).mean(axis=0)
            classes.append(mean / np.linalg.norm(mean))
        expected = float((np.argmax(images @ np.array(classes).T, axis=1) == truth).mean())
        found = run(EvaluateOptions(model=str(dual_folder), data=str(folders), templates=name)).to_json()
        assert found["zero_shot"]["accuracy"] == pytest.approx(expected)


def test_sentences_of_a_file_describe_the_classes_and_must_name_all(
    dual_folder: Path, folders: Path, tmp_path: Path
) -> None:
    described = tmp_path / "labels.json"
    described.write_text(json.dumps({"cat": ["a small tiger"], "dog": "a tame wolf", "cow": "a cow"}))
    options = EvaluateOptions(model=str(dual_folder), data=str(folders), labels_file=described)
    assert run(options).to_json()["zero_shot"]["classes"] == 3
    described.write_text(json.dumps({"cat": "a small tiger", "cow": "a cow"}))
    with pytest.raises(DataError, match=r"labels\.json does not name the class 'dog' of .*classes"):
        run(options)


def test_the_command_prints_a_table_json_and_a_csv(
    dual_folder: Path, labelled: Path, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["evaluate", "--model", str(dual_folder), "--data", str(labelled)]
    assert main([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["texts"]) == (8, 9)
    assert set(found["image_to_text"]) == set(found["chance"]["image_to_text"]) == {"R@1", "R@5"}
    table = labelled.with_name("measures.csv")
    both = ["--before", str(dual_folder), "--retention", str(folders), "--csv", str(table)]
    assert main([*given, *both]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"domain: {labelled}, 8 images, 9 captions, 3 classes"
    assert said[1].split() == ["before", "after", "chance"]
    assert said[2].split()[:4] == ["image", "to", "text", "R@1"]
    assert any(line.startswith("retention: ") for line in said)
    rows = [*csv.DictReader(table.read_text().splitlines())]
    assert [(row["set"], row["measure"]) for row in rows][-1] == ("retention", "zero-shot mean recall")
    assert main([*given, *both]) == 3, "nothing is overwritten"
    assert f"{table} is there already" in capsys.readouterr().err


def test_one_set_and_one_model_have_one_column(
    dual_folder: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--model", str(dual_folder), "--data", str(labelled)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["share", "chance"]
