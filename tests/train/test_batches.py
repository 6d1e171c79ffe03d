import numpy as np
import pytest

from clipcond.errors import DataError
from clipcond.images.preprocess import Preprocess
from clipcond.train.batches import Batches, id_rows
from clipcond.train.data import read_pairs
from clipcond.train.pixels import Pixels

HALF = (0.5, 0.5, 0.5)
WHOLE = Preprocess(height=32, width=32, mean=HALF, std=HALF)


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
    with pytest.raises(DataError, match=r"cannot decode .*bad\.png: is not a picture in a format that can be read"):
        list(batches(pairs).ahead(0, 2))


def test_a_batch_says_which_of_its_pairs_are_no_negatives(pairs_csv):
    pairs = read_pairs(pairs_csv).take([0, 1, 1, 2, 3])
    images, texts = batches(pairs, captions="first")[0].matches
    same = (images[:, None] == texts[None]).any(axis=2)
    rows = batches(pairs).rows(0).tolist()
    assert {(int(i), int(j)) for i, j in np.argwhere(same) if i != j} == {
        (rows.index(one), rows.index(other)) for one, other in [(1, 2), (2, 1)]
    }
