import pytest

import clipcond
from clipcond.errors import DataError
from clipcond.score.retrieval import Retrieval
from clipcond.train.data import read_pairs
from clipcond.train.evaluate import gallery

from .pictures import picture, write_tar


def test_equal_images_and_equal_captions_count_once(tmp_path):
    for name, number in (("a", 0), ("b", 0), ("c", 1)):
        picture(number).save(tmp_path / f"{name}.png")
    path = tmp_path / "p.csv"
    path.write_text("image,caption\na.png,red\nb.png,dark red\nc.png,red\n")
    of = gallery(read_pairs(path))
    assert of.rows.tolist() == [0, 2]
    assert of.texts == ["red", "dark red"]
    assert sorted(zip(*(side.tolist() for side in of.right), strict=True)) == [(0, 0), (0, 1), (1, 0)]


def test_a_model_is_measured_by_its_spec(dual_folder, pairs_csv):
    found = clipcond.evaluate(str(dual_folder), pairs_csv)
    assert isinstance(found, Retrieval)
    assert (found.images, found.texts) == (24, 36)
    assert 0 <= found.image_to_text[1] <= found.image_to_text[5] <= found.image_to_text[10] <= 1
    assert found == clipcond.evaluate(str(dual_folder), pairs_csv)


def test_a_gallery_of_one_is_refused(dual_folder, tmp_path):
    from .pictures import png

    path = write_tar(tmp_path / "one.tar", {"a.png": png(0), "a.txt": b"x"})
    with pytest.raises(DataError, match=r"one\.tar holds 1 image; retrieval needs 2 or more"):
        clipcond.evaluate(str(dual_folder), path)
