import subprocess
import sys

import pytest
import torch

import clipcond
from clipcond.errors import DataError, ModelError
from clipcond.score.retrieval import Retrieval
from clipcond.train.data import read_pairs
from clipcond.train.evaluate import gallery, score_gallery

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


@pytest.mark.parametrize("tower", ["image", "text"])
def test_vectors_that_are_not_finite_are_no_perfect_retrieval(pairs_csv, tower):
    of = gallery(read_pairs(pairs_csv))
    good = torch.nn.functional.normalize(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    bad = good.clone()
    bad[3, 1] = float("nan")
    images, texts = (bad, good) if tower == "image" else (good, bad)
    words = f"{tower} vectors hold values that are not finite; the {tower} encoder is damaged"
    with pytest.raises(ModelError, match=words):
        score_gallery(of, lambda rows: images[: len(rows)], lambda said: texts[: len(said)], batch=64)


def test_large_pictures_are_shrunk_while_they_are_read(dual_folder, tmp_path):
    rows = ["image,caption"]
    for number in range(48):
        picture(number).resize((2000, 1500)).save(tmp_path / f"{number}.png", compress_level=1)
        rows.append(f"{number}.png,number {number}")
    (tmp_path / "p.csv").write_text("\n".join(rows))
    code = (
        "import resource, sys, clipcond\n"
        "from clipcond.models.load import load_dual\n"
        "from clipcond.train import pixels\n"
        "pixels.workers = lambda: 2\n"
        "dual = load_dual(sys.argv[1])\n"
        "clipcond.evaluate(dual, sys.argv[2])\n"  # brings everything in
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "clipcond.evaluate(dual, sys.argv[3])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    small = tmp_path / "small"
    small.mkdir()
    for number in range(2):
        picture(number).save(small / f"{number}.png")
    (small / "p.csv").write_text("image,caption\n0.png,a\n1.png,b\n")
    given = [sys.executable, "-c", code, str(dual_folder), str(small / "p.csv"), str(tmp_path / "p.csv")]
    ran = subprocess.run(given, capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 150 * 1024, "48 pictures of 9 MB each are 432 MB"
