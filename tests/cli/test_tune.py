"""`clipcond tune` and `classify --tuned`, as a user types them, rightly and wrongly."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from safetensors import safe_open

from clipcond.cli import main
from clipcond.mini import world


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Circles and stars under names that do not say it: the one is called red, the other blue, and both are white."""
    root, rng = tmp_path_factory.mktemp("tune"), random.Random(1)
    for name, shape in (("red", "circle"), ("blue", "star")):
        (root / "sorted" / name).mkdir(parents=True)
        for number in range(6):
            thing = world.Object(colour="white", shape=shape, cell=rng.choice(world.CELLS))
            world.render(world.Scene(background="gray", objects=(thing,)), rng).save(
                root / "sorted" / name / f"{number}.png"
            )
    rows = [f"sorted/{name}/{number}.png,{name}" for name in ("red", "blue") for number in range(3)]
    (root / "test.csv").write_text("image,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    (root / "one.csv").write_text("image,label\nsorted/red/0.png,red\n", encoding="utf-8")
    (root / "labels.json").write_text('{"red": ["a circle"], "blue": ["a star", "a white star"]}', encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


TUNE = ["tune", "sorted", "--sentence", "a {} in the center", "--templates", "text", "--rate", "0.3"]


def test_tuned_classes_are_compared_saved_and_used(capsys, tmp_path: Path) -> None:
    out, look = tmp_path / "tuned.safetensors", tmp_path / "look.safetensors"
    command = [*TUNE, "--out", str(out), "--embedding", str(look)]
    assert main(command) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert [row["method"] for row in found["rows"]] == ["zero-shot", "templates", "shared", "per-class"]
    assert (found["fit"], found["validation"], found["test"]) == (8, 2, 2)
    assert found["best"] in shown.err  # the file says what it holds
    assert found["rows"][3]["validation_loss"] < 0.5 * found["rows"][0]["validation_loss"]
    with safe_open(look, framework="numpy") as file:
        assert list(file.keys()) == ["look"]
        assert file.get_tensor("look").shape[0] == 1
    assert main(command) == 3
    assert "tuned.safetensors is there already; name another file or give --force" in capsys.readouterr().err
    assert main(["classify", "sorted", "-r", "--tuned", str(out), "--truth", "folders"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 12
    assert sum(row["label"] == Path(row["path"]).parent.name for row in rows) >= 11


def test_the_table_is_for_people(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipcond.cli.gallery_options.on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    assert main([*TUNE, "--learn", "shared", "--test", "test.csv", "--labels-file", "labels.json", "--steps", "2"]) == 0
    shown = capsys.readouterr()
    assert "2 classes: 10 pictures to learn from, 2 to stop by, 6 to test on" in shown.out
    assert "95 %" in shown.out
    assert "tuning does not help" in shown.out  # zero-shot with the right sentences is best
    assert "6 of the 6 test pictures are trained on; accuracy flatters" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune", "none"], "there is no none; expected a folder of folders"),
        (["tune", "one.csv"], "one.csv has one class, 'red'; expected two or more"),
        (["tune", "sorted", "--learn", "context"], "--learn context: expected templates, shared, per-class"),
        (["tune", "sorted", "--learn", "templates", "--embedding", "x.safetensors"], "which --learn does not name"),
        (["tune", "sorted", "--learn", "templates", "--templates", "none"], "has one sentence, so there is nothing"),
        (["tune", "sorted", "--learn", "templates", "--labels-file", "labels.json"], "describes 'red' in sentences of"),
        (["tune", "sorted", "--sentence", "{} here"], "expected words before {}"),
        (["tune", "sorted", "--sentence", "a photo"], "has no {} where the class goes"),
        (["tune", "sorted", "--templates", "photos"], "no templates 'photos'"),
        (["tune", "sorted", "--hold-out", "0.5"], "--hold-out is 0.5; expected a share above 0 and below 0.5"),
        (["tune", "sorted", "--rate", "0"], "--rate is 0; expected more than 0"),
        (["tune", "sorted", "--steps", "0"], "--steps is 0; expected 1 or more"),
        (["tune", "sorted", "--seed", "-1"], "--seed is -1; expected 0 or more"),
        (["tune", "sorted", "--out", "x.pt"], "--out x.pt: expected a name that ends in .safetensors"),
        (["tune", "sorted", "--out", "no/x.safetensors"], "there is no folder no for x.safetensors"),
        (["tune", "sorted", "-o", "x.safetensors", "--embedding", "x.safetensors"], "name the same file"),
        (["tune", "sorted", "--model", "./none"], "no model './none'"),
        (["classify", "sorted", "-r", "--tuned", "no.safetensors"], "no tuned classes at no.safetensors"),
        (["classify", "sorted", "-r", "--tuned", "test.csv"], "test.csv is no file of tuned classes"),
        (["classify", "sorted", "-r", "--tuned", "x", "--labels-file", "y"], "--tuned knows classes by name alone"),
        (["classify", "sorted", "-r", "--tuned", "x", "--templates", "photo"], "leave --templates out"),
    ],
)
def test_what_will_not_do_is_one_line_before_a_model_loads(
    arguments: list[str], message: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*given: object, **more: object) -> None:
        raise AssertionError("loaded a model")

    monkeypatch.setattr("clipcond.rerank.scorer.Scorer.load", load)
    assert main(arguments) in (2, 3)
    shown = capsys.readouterr()
    assert message in shown.err.splitlines()[0]
    assert "Traceback" not in shown.err
    assert not shown.out
