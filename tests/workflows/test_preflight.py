"""The look at training data before a run, without its command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipcond.errors import ConfigError, OptionsError
from clipcond.train.check import Check
from clipcond.workflows.events import Event, Note
from clipcond.workflows.preflight import Preflight, PreflightOptions, run

LONG = "red " * 80 + "mullet"


def picture(path: Path, number: int) -> None:
    Image.new("RGB", (16, 16), (number, 2 * number, 255 - number)).save(path)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twenty pictures whose captions all differ."""
    rows = ["image,caption"]
    for number in range(20):
        picture(tmp_path / f"{number}.png", number)
        rows.append(f"{number}.png,a circle of number {number}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "pairs.csv"


def add(table: Path, *rows: str) -> None:
    table.write_text(table.read_text() + "\n".join(rows) + "\n")


def look(table: Path, decode: str = "500", **settings: object) -> Preflight:
    return run(PreflightOptions(settings={"data": str(table), "batch_size": 4, **settings}, decode=decode))


def found(outcome: Preflight, name: str) -> Check:
    (check,) = [each for each in outcome.checks if each.name == name]
    return check


def verdicts(outcome: Preflight) -> dict[str, str]:
    return {check.name: check.verdict for check in outcome.checks if check.verdict != "ok"}


def test_good_data_have_nothing_to_say(table: Path) -> None:
    outcome = look(table, batch_size=20)
    assert verdicts(outcome) == {}
    assert not outcome.stops
    assert found(outcome, "data").text == (
        "a table separated by commas, images in 'image', captions in 'caption'; 20 images, 20 captions"
    )
    assert found(outcome, "steps").numbers == {"steps_per_epoch": 1, "steps": 5, "warmup": 1, "batch_size": 20}


def test_rows_that_will_not_do_are_counted_by_kind_and_stop_beyond_the_limit(table: Path) -> None:
    add(table, "gone.png,a", "0.png,", "1.png,nan", "2.png", "gone.png,b")
    rows = found(look(table), "rows")
    assert rows.verdict == "stops"
    assert rows.numbers == {
        "bad": 5, "max_bad_rows": 0, "missing_file": 2, "empty_caption": 1, "missing_value": 1, "unreadable_row": 1,
    }  # fmt: skip
    assert rows.text.endswith("max_bad_rows is 0: mend them, or give --max-bad-rows 5")
    assert len(rows.examples) == 5
    assert found(look(table, max_bad_rows=5), "rows").verdict == "warning"
    assert not look(table, max_bad_rows=5).stops


def test_captions_that_are_cut_tell_what_is_lost(table: Path) -> None:
    add(table, f"0.png,{LONG}")
    length = found(look(table), "length")
    assert length.verdict == "warning"
    assert (length.numbers["over"], length.numbers["longest"]) == (1, 81)
    assert length.numbers["lost_content_tokens"] == 6
    assert length.examples == ("81 tokens, lost: red red red red red mullet",)


@pytest.mark.parametrize(
    ("settings", "verdict", "end"),
    [
        ({}, "note", "unseen_rate would give their rows a rate of their own"),
        ({"unseen_rate": 0.02}, "note", "their rows train at unseen_rate 0.02"),
        ({"freeze": ["text"]}, "warning", "and their rows stay as they are; unseen_rate would train them"),
    ],
)
def test_words_that_the_tower_has_never_seen_are_named(
    table: Path, settings: dict[str, Any], verdict: str, end: str
) -> None:
    table.write_text("image,caption\n" + "".join(f"{n}.png,a circle {'mullet' if n < 3 else ''}\n" for n in range(8)))
    words = found(look(table, model="mini", **settings), "words")
    assert words.verdict == verdict
    assert words.text.startswith("3 of 8 captions hold words that mini has never seen")
    assert words.text.endswith(end)
    assert words.examples == ("mullet (3 captions)",)


def test_words_are_not_looked_at_where_there_are_no_weights(table: Path) -> None:
    assert found(look(table), "words").text == "not looked at: no --model is given"
    assert "of random weights" in found(look(table, model="mini", init="random"), "words").text
    assert "when a run loads them" in found(look(table, model="ViT-B-32/openai"), "words").text


def test_shared_captions_are_the_false_negatives_of_a_batch(table: Path) -> None:
    table.write_text("image,caption\n" + "".join(f"{n}.png,{'Same  one' if n < 4 else n}\n" for n in range(8)))
    same = found(look(table), "same captions")
    assert same.numbers == {"images_sharing": 4, "pairs_a_batch": round(6 * 4 * 3 / (8 * 7), 2)}
    assert same.examples == ("4 images: same one",)


def test_pictures_are_decoded_to_their_end_and_copies_are_found(table: Path) -> None:
    folder = table.parent
    whole = (folder / "0.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    (folder / "copy.png").write_bytes(whole)
    add(table, "broken.png,broken", "copy.png,copy")
    outcome = look(table)
    assert verdicts(outcome) == {"pictures": "stops", "same pictures": "warning", "steps": "warning"}
    assert found(outcome, "pictures").numbers == {"decoded": 22, "of": 22, "unreadable": 1}
    assert found(outcome, "same pictures").examples == (f"{folder}/0.png = {folder}/copy.png",)
    assert verdicts(look(table, max_bad_rows=1))["pictures"] == "warning"
    assert "pictures" not in verdicts(look(table, decode="none"))
    assert found(look(table, decode="3"), "pictures").numbers["decoded"] == 3


def test_what_is_held_out_and_trained_on_is_said(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "val"
    other.mkdir()
    (other / "same bytes.png").write_bytes((tmp_path / "3.png").read_bytes())
    picture(other / "new.png", 99)
    rows = ["image,caption", "../5.png,new words", "same bytes.png,other words", "new.png,A circle of  number 7"]
    (other / "val.csv").write_text("\n".join(rows) + "\n")
    held = found(look(table, val_data=str(other / "val.csv")), "held out")
    assert held.verdict == "warning"
    assert held.numbers == {"held_out_images": 3, "leaked_images": 2, "leaked_captions": 1}
    assert held.text == (
        "2 held-out images of 3 trained on as well; 1 held-out caption said in the training data too; "
        "retrieval will look better than it is"
    )
    assert found(look(table, val_count=5), "held out").text == "5 images, none trained on"
    assert found(look(table, val_count=20), "held out").verdict == "stops"


def test_lengths_and_rates_that_end_badly(table: Path) -> None:
    assert "give --batch-size 20 or less" in found(look(table, batch_size=64), "steps").text
    assert found(look(table, batch_size=10, steps=4, warmup=4), "steps").verdict == "stops"
    assert "the warm-up is 75% of the run" in found(look(table, batch_size=20, steps=4, warmup=3), "steps").text
    assert found(look(table, steps=1), "steps").numbers["warmup"] == 0
    assert found(look(table, learning_rate=1e-4), "learning rate").verdict == "warning"
    assert found(look(table, learning_rate=1e-4, init="random"), "learning rate").verdict == "ok"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,caption\n0.png,\x93caf\xe9\x94\n", "looks like Windows-1252 or Latin-1"),
        ("image,caption\n0.png,x\n".encode("utf-16"), "line 1: this is UTF-16"),
        (b"picture,words\n0.png,x\n", "expected a column of image"),
        (b'image,caption\n0.png,"x\n1.png,y\n', "is a quote left open or not doubled?"),
    ],
)
def test_a_file_that_cannot_be_read_stops_in_one_line(table: Path, content: bytes, message: str) -> None:
    table.write_bytes(content)
    outcome = look(table)
    assert outcome.stops
    assert message in " ".join([outcome.checks[-1].text, *outcome.checks[-1].examples])
    assert "\n" not in outcome.checks[-1].text


def test_settings_that_are_wrong_are_errors_and_paths_that_lead_nowhere_are_told(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'batchsize'"):
        look(table, batchsize=3)
    with pytest.raises(OptionsError, match="--decode is some"):
        PreflightOptions(settings={"data": str(table)}, decode="some")
    with pytest.raises(OptionsError, match="give --data"):
        PreflightOptions(settings={})
    settings = found(look(table, model="./nowhere"), "settings")
    assert settings.verdict == "stops"
    assert "no model './nowhere'" in settings.text
    file = tmp_path / "run.toml"
    file.write_text(f'data = "{table}"\nbatch_size = 20\n')
    assert not run(PreflightOptions(config=file, settings={})).stops


def test_of_two_encoders_the_first_run_is_looked_at(table: Path) -> None:
    outcome = look(table, batch_size=20, model="mini", model_2="mini", target="sdxl", encoder="both")
    assert verdicts(outcome).keys() <= {"words"}
    with pytest.raises(ConfigError, match="say with --encoder which trains"):
        look(table, model="mini", target="sdxl")


def test_a_preset_is_told_and_fits(table: Path) -> None:
    events: list[Event] = []
    outcome = run(PreflightOptions(settings={"data": str(table), "preset": "small"}), events.append)
    assert found(outcome, "steps").numbers["batch_size"] == 16
    (note,) = [event for event in events if isinstance(event, Note)]
    assert note.text.startswith("preset small: batch_size 16, epochs 10, learning_rate 5e-06")


def test_folders_and_tars_are_said_to_be_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "3_fox").mkdir()
    for number in range(2):
        picture(tmp_path / "3_fox" / f"{number}.png", number)
    data = found(look(tmp_path), "data")
    assert data.verdict == "note"
    assert data.text == "a folder of pictures with texts beside them; 2 images, 2 captions"
    assert data.examples[0] == "repeats as of kohya's scripts: 3_fox counts 3 times"
    assert found(look(tmp_path), "steps").numbers["steps_per_epoch"] == 1
    same = found(look(tmp_path), "same captions")  # of six shown, each couple is of one caption
    assert same.numbers == {"images_sharing": 2, "pairs_a_batch": 4 * 3 / 2}
    assert "and some are repeated" in same.text


def test_no_model_library_is_loaded(table: Path) -> None:
    code = (
        "import sys; from clipcond.workflows.preflight import PreflightOptions, run\n"
        f"run(PreflightOptions(settings={{'data': {str(table)!r}, 'model': 'mini', 'val_count': 3}}))\n"
        "print(sorted({'torch', 'open_clip', 'transformers', 'diffusers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
