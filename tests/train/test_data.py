import json

import numpy as np
import pytest

from clipcond.errors import DataError
from clipcond.images.preprocess import Preprocess
from clipcond.train.batches import Batches, id_rows
from clipcond.train.data import read_pairs, split
from clipcond.train.pixels import Pixels, preflight, prepare

from .pictures import picture, png, said, write_tar

HALF = (0.5, 0.5, 0.5)
WHOLE = Preprocess(height=32, width=32, mean=HALF, std=HALF)


def test_csv_rows_of_one_image_are_merged_and_paths_are_relative_to_the_file(pairs_csv):
    pairs = read_pairs(pairs_csv)
    assert len(pairs) == 24
    assert pairs.captions[3] == tuple(said(3))
    assert np.array_equal(prepare(pairs.images[3], WHOLE), np.asarray(picture(3)))


@pytest.mark.parametrize("separator", ["\t", ";", "|"])
def test_the_separator_is_sniffed_or_stated(tmp_path, separator):
    picture(0).save(tmp_path / "a.png")
    path = tmp_path / "pairs.csv"
    path.write_text(f"id{separator}Image{separator}Caption\n1{separator}a.png{separator}red, green\n")
    for stated in (None, separator):
        assert read_pairs(path, separator=stated).captions == [("red, green",)]


def test_jsonl_takes_one_caption_or_several(tmp_path):
    picture(0).save(tmp_path / "a.png")
    picture(1).save(tmp_path / "b.png")
    lines = [{"path": "a.png", "text": "one"}, {"image": "b.png", "captions": ["two", "three"]}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert read_pairs(path).captions == [("one",), ("two", "three")]


@pytest.mark.parametrize("form", ["folder", "glob", "one"])
def test_tars_are_indexed_for_random_access(pairs_tars, form):
    source = {"folder": pairs_tars, "glob": pairs_tars / "a-*.tar", "one": pairs_tars / "a-1.tar"}[form]
    pairs = read_pairs(source)
    shift = 12 if form == "one" else 0
    assert len(pairs) == 24 - shift
    assert pairs.captions[-1] == (said(23)[0],)
    assert np.array_equal(prepare(pairs.images[15 - shift], WHOLE), np.asarray(picture(15)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "image,caption\na.png,x\ngone.png,y\n", r"line 3: .*gone\.png does not exist$"),
        ("p.csv", "image,caption\na.png,  \n", r"line 2: the caption of a\.png is empty"),
        ("p.csv", "image,caption\n,x\n", "line 2: the image path is empty"),
        ("p.csv", "image,caption\na.png\n", "line 2: 1 columns, the header has more"),
        ("p.csv", "picture,caption\na.png,x\n", r"has the header 'picture,caption'; expected a column of image"),
        ("p.csv", "image,caption\n", r"p\.csv holds no pairs"),
        ("p.jsonl", "{\n", "line 1: not JSON"),
        ("p.jsonl", '{"caption": "x"}\n', "line 1: no image; expected one of image, path, filepath, file_name, url"),
        ("p.jsonl", '{"image": "a.png", "caption": null}\n', "line 1: no caption; expected a text or a list"),
        ("p.jsonl", '{"image": "a.png", "caption": []}\n', "line 1: no caption; expected a text or a list"),
        ("p.jsonl", '{"image": "a.png", "caption": [""]}\n', r"line 1: the caption of a\.png is empty"),
        ("p.jsonl", '["a.png"]\n', "line 1: no image"),
        ("p.xls", "", r"ends in '\.xls', expected \.csv, \.tsv, \.jsonl, \.parquet, \.tar or \.tar\.gz"),
        ("p.tar", "not a tar at all", r"p\.tar is not a readable tar"),
    ],
)
def test_unusable_data_is_one_line(tmp_path, name, content, message):
    picture(0).save(tmp_path / "a.png")
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_pairs(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_absent_files_and_globs_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv does not exist; expected a CSV"):
        read_pairs(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"no file matches .*\*\.tar"):
        read_pairs(tmp_path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.png": png(0)}, r"a\.png has no caption: there is no a\.txt or a\.json"),
        ({"a.png": png(0), "a.txt": b" \n"}, r"a\.txt: the caption is empty"),
        ({"a.png": png(0), "a.json": b"{"}, r"a\.json: not JSON"),
        ({"a.png": png(0), "a.json": b'{"said": "x"}'}, r"a\.json: no caption; expected a text or a list"),
        ({"a.txt": b"x"}, "holds no pairs"),
    ],
)
def test_unusable_tars_are_one_line(tmp_path, members, message):
    with pytest.raises(DataError, match=message):
        read_pairs(write_tar(tmp_path / "a.tar", members))


def test_preflight_decodes_and_names_the_file(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    content = png(0)
    pairs = read_pairs(write_tar(tmp_path / "a.tar", {"a.png": content[: len(content) // 2], "a.txt": b"x"}))
    with pytest.raises(DataError, match=r"cannot decode .*a\.tar:a\.png: "):
        preflight(pairs, WHOLE)


def test_a_file_that_went_away_is_named(pairs_csv, tmp_path):
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "p.csv").write_text("image,caption\na.png,x\n")
    pairs = read_pairs(tmp_path / "p.csv")
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"cannot read .*a\.png: No such file"):
        preflight(pairs, WHOLE)


def test_pixels_are_the_same_kept_or_not(pairs_csv):
    pairs = read_pairs(pairs_csv)
    kept, fresh = Pixels(pairs, WHOLE, 1.0), Pixels(pairs, WHOLE, 0.0)
    rows = np.array([5, 2, 5, 23])
    for _ in range(2):
        assert np.array_equal(kept[rows], fresh[rows])
    pairs.images[5] = pairs.images[0]
    assert np.array_equal(kept[rows][0], np.asarray(picture(5))), "what is kept is not read again"


def test_split_holds_out_without_overlap(pairs_csv):
    pairs = read_pairs(pairs_csv)
    rest, held = split(pairs, 6, seed=1)
    assert len(held) == 6
    assert {str(place) for place in (*rest.images, *held.images)} == {str(place) for place in pairs.images}
    assert split(pairs, 6, seed=1)[1].images == held.images != split(pairs, 6, seed=2)[1].images
    with pytest.raises(DataError, match=r"val_count is 24, but .*pairs\.csv holds 24 images"):
        split(pairs, 24, seed=1)


def test_long_captions_keep_their_end_and_are_counted():
    ids, cut = id_rows(["red " * 100, "a dog", "x " * 75])
    assert ids.shape == (3, 77)
    assert cut == 1
    assert ids[:, 0].tolist() == [49406] * 3
    assert ids[0, 76] == ids[2, 76] == 49407
    assert 49407 not in ids[0, :76]
    assert ids[1, 3:].tolist() == [49407] * 74
    assert id_rows(["a dog"])[0].shape == (1, 4)


def batches(pairs, **changes):
    given = {"batch_size": 5, "seed": 3, **changes}
    return Batches(pairs, Pixels(pairs, WHOLE, 1.0), **given)


def test_an_epoch_sees_every_image_at_most_once_and_epochs_differ(pairs_csv):
    stream = batches(read_pairs(pairs_csv))
    assert stream.per_epoch == 4
    first, second = ([stream.rows(step).tolist() for step in range(e * 4, e * 4 + 4)] for e in (0, 1))
    assert len({row for rows in first for row in rows}) == 20
    assert first != second
    assert batches(read_pairs(pairs_csv), seed=4).rows(0).tolist() != first[0]


def test_a_step_is_the_same_whoever_asks_first(pairs_csv):
    pairs = read_pairs(pairs_csv)
    whole = list(batches(pairs).ahead(0, 10))
    for start in (3, 4, 9):
        for there, here in zip(whole[start:], batches(pairs).ahead(start, 10), strict=True):
            assert there.step == here.step
            assert np.array_equal(there.ids, here.ids)
            assert np.array_equal(there.pixels, here.pixels)


def test_one_of_several_captions_or_the_first(pairs_csv):
    pairs = read_pairs(pairs_csv).take([1] * 8)
    lengths = {tuple(np.argmax(batch.ids == 49407, axis=1)) for batch in batches(pairs).ahead(0, 3)}
    assert len({length for row in lengths for length in row}) == 2
    only = next(iter(batches(pairs, captions="first").ahead(0, 1)))
    assert len(set(np.argmax(only.ids == 49407, axis=1))) == 1


def test_too_few_images_for_a_batch(pairs_csv):
    with pytest.raises(DataError, match=r"batch_size is 25, but .*pairs\.csv holds 24 images for training"):
        batches(read_pairs(pairs_csv), batch_size=25)


def test_an_error_of_the_thread_comes_out_of_the_loop(pairs_csv, tmp_path):
    pairs = read_pairs(pairs_csv)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    pairs.images[:] = [type(pairs.images[0])(tmp_path / "bad.png")] * 24
    with pytest.raises(DataError, match=r"cannot decode .*bad\.png: it is not a picture in a format that can be read"):
        list(batches(pairs).ahead(0, 2))
