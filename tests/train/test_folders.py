"""Folders of pictures with texts beside them, kohya's repeats, and hard negatives and groups in folders and tars."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from clipcond.errors import DataError
from clipcond.train.batches import Batches
from clipcond.train.data import Pairs, read_pairs, split

from .pictures import picture, png, write_tar


def folder(path: Path, texts: dict[str, str | bytes], pictures: list[str]) -> Path:
    for number, name in enumerate(pictures):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path / name)
    for name, text in texts.items():
        (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def said(pairs: Pairs) -> dict[str, tuple[str, ...]]:
    return {image.path.name: captions for image, captions in zip(pairs.images, pairs.captions, strict=True)}


def test_a_text_beside_a_picture_holds_a_caption_a_line(tmp_path: Path) -> None:
    texts = {
        "a.txt": "one\n\n two \n", "b.caption": "\ufeffthree", "c.json": '{"captions": ["four", "five"]}',
        "more/d.txt": "six", "e.txt": "alone", ".f.txt": "hidden",
    }  # fmt: skip
    pairs = read_pairs(folder(tmp_path, texts, ["a.png", "b.JPG", "c.png", "more/d.png", ".f.png"]))
    assert said(pairs) == {
        "a.png": ("one", "two"),
        "b.JPG": ("three",),
        "c.png": ("four", "five"),
        "d.png": ("six",),
    }
    assert pairs.repeats == ()
    assert pairs.notes == (f"{tmp_path}/e.txt has no picture",)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({}, r"a\.png has no caption: there is no a\.txt or a\.caption or a\.json beside it"),
        ({"a.txt": " \n"}, r"a\.txt: the caption is empty"),
        ({"a.txt": "NaN"}, r"a\.txt: the caption is NaN, a missing value; expected words"),
        ({"a.txt": "café noir".encode("cp1252")}, r"a\.txt: the byte 0xe9 is not UTF-8; .* looks like Windows-1252"),
        ({"a.txt": "赤い円".encode("shift-jis")}, r"a\.txt: .* not UTF-8; .* looks like an encoding of several bytes"),
        ({"a.json": "{"}, r"a\.json: not JSON"),
        ({"a.txt": "x", "a.json": '{"negative_image": "b.png"}'}, r"a\.json names b\.png, which is not in "),
    ],
)
def test_faults_beside_a_picture_are_one_line_and_counted(tmp_path: Path, texts: dict, message: str) -> None:
    path = folder(tmp_path, texts, ["a.png"])
    with pytest.raises(DataError, match=message) as caught:
        read_pairs(path)
    assert "\n" not in str(caught.value)
    pairs = read_pairs(folder(path, {"z.txt": "fine"}, ["z.png"]), max_bad_rows=1)
    assert (len(pairs), len(pairs.left_out), len(pairs.faults)) == (1, 1, 1)


def test_kohyas_folders_repeat_their_pictures_and_name_them(tmp_path: Path) -> None:
    texts = {"3_red fox/a.txt": "a red fox", "plain/c.txt": "plain", "0_off/d.txt": "no"}
    path = folder(tmp_path, texts, ["3_red fox/a.png", "3_red fox/b.png", "plain/c.png", "0_off/d.png"])
    pairs = read_pairs(path)
    assert said(pairs) == {"a.png": ("a red fox",), "b.png": ("red fox",), "c.png": ("plain",)}
    assert pairs.repeats == [3, 3, 1]
    assert pairs.notes == (
        "repeats as of kohya's scripts: 0_off is left out, 3_red fox counts 3 times",
        "1 pictures without a caption take the name of their folder",
    )
    batches = Batches(pairs, None, batch_size=7, seed=0)
    assert batches.per_epoch == 1
    for step in (0, 1):
        assert Counter(batches.rows(step).tolist()) == {0: 3, 1: 3, 2: 1}
    with pytest.raises(DataError, match=r"batch_size is 8, but .* holds 7 images for training"):
        Batches(pairs, None, batch_size=8, seed=0)
    rest, held = split(pairs, 1, seed=0)
    assert sorted([*rest.repeats, *held.repeats]) == [1, 3, 3]
    (tmp_path / "3_red fox").rename(tmp_path / "4_red fox")
    assert read_pairs(path).fingerprint() != pairs.fingerprint()


def test_an_epoch_without_repeats_is_in_the_order_it_always_had(pairs_csv: Path) -> None:
    pairs = read_pairs(pairs_csv)
    order = np.random.default_rng([5, 2, 0]).permutation(24)
    assert Batches(pairs, None, batch_size=12, seed=5).rows(1).tolist() == order[12:].tolist()


def test_a_folder_without_pictures_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(
        DataError, match=r"no file matches .*\*\.tar, and there is no metadata\.csv and no picture in it"
    ):
        read_pairs(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize(("name", "kind"), [("a.png", "picture"), ("a.txt", "caption")])
def test_a_pipe_is_refused_without_waiting(tmp_path: Path, name: str, kind: str) -> None:
    folder(tmp_path, {"a.txt": "x", "b.txt": "y"}, ["a.png", "b.png"])
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name} is no regular file, not a {kind}"):
        read_pairs(tmp_path)


MEMBERS: dict[str, bytes] = {
    "a.png": png(0), "a.txt": b"red\ncrimson\n", "a.json": json.dumps({"negative": "blue", "group": 7}).encode(),
    "a.negative.txt": b"green\n", "a.negative.png": png(5),
    "b.png": png(1), "b.json": json.dumps({"caption": "blue", "negative_images": ["a.png"]}).encode(),
    "b.group.txt": b"sky\nsea\n",
    "c.png": png(2), "c.txt": b"plain", "c.json": b"{no JSON",
}  # fmt: skip


@pytest.mark.parametrize("form", ["tar", "folder"])
def test_negatives_and_groups_stand_beside_a_picture(tmp_path: Path, form: str) -> None:
    source = write_tar(tmp_path / "a.tar", MEMBERS) if form == "tar" else folder(tmp_path, MEMBERS, [])
    pairs = read_pairs(source)
    assert list(pairs.captions) == [("red", "crimson"), ("blue",), ("plain",)]
    first, second, third = pairs.relations
    assert (first.negatives, first.groups) == (("blue", "green"), ("7",))
    assert [image.read() for image in first.negative_images] == [png(5)]
    assert [image.read() for image in second.negative_images] == [png(0)]
    assert (second.negatives, second.groups) == ((), ("sky", "sea"))
    assert (third.negatives, third.groups, third.negative_images) == ((), (), ())
    assert pairs.notes == ()


def test_a_tar_without_the_negative_picture_it_names_says_so(tmp_path: Path) -> None:
    members = {"a.png": png(0), "a.json": b'{"caption": "x", "negative_image": "b.png"}'}
    with pytest.raises(DataError, match=r"a\.tar:a\.json names b\.png, which is not in the tar"):
        read_pairs(write_tar(tmp_path / "a.tar", members))


def test_missing_values_of_tables_are_no_captions(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "p.csv").write_text("image,caption\na.png,nan\n")
    with pytest.raises(DataError, match=r"line 2: the caption of a\.png is nan, a missing value; expected words"):
        read_pairs(tmp_path / "p.csv")
    (tmp_path / "p.jsonl").write_text(
        '{"image": "a.png", "caption": NaN}\n{"image": "a.png", "caption": "nan bread"}\n'
    )
    pairs = read_pairs(tmp_path / "p.jsonl", max_bad_rows=1)
    assert pairs.faults == ("missing value",)
    assert list(pairs.captions) == [("nan bread",)]
