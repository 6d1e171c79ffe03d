import numpy as np
import pytest

from clipcond.errors import DataError
from clipcond.images.preprocess import Preprocess
from clipcond.train.data import read_pairs
from clipcond.train.pixels import Pixels, preflight

from .pictures import picture, png, write_tar

HALF = (0.5, 0.5, 0.5)
WHOLE = Preprocess(height=32, width=32, mean=HALF, std=HALF)


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
