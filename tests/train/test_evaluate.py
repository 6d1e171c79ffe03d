import subprocess
import sys

import numpy as np
import pytest
import torch

import clipcond
from clipcond.errors import DataError, ModelError
from clipcond.score.retrieval import Retrieval, retrieval
from clipcond.train.data import read_pairs
from clipcond.train.evaluate import gallery, score_gallery

from .pictures import picture, write_tar


def unit(rows):
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def one_to_one(count):
    return np.arange(count), np.arange(count)


def naive(scores, right):
    """Recall by sorting, for scores without ties: the best right answer's place in each row."""
    places = []
    for row in range(len(scores)):
        order = np.argsort(-scores[row])
        mine = {j for i, j in zip(*right, strict=True) if i == row}
        wrong_before = 0
        for answer in order:
            if answer in mine:
                break
            wrong_before += 1
        places.append(wrong_before)
    return {k: float(np.mean([place < k for place in places])) for k in (1, 5, 10)}


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_several_captions_an_image_against_sorting(block):
    draw = np.random.default_rng(0)
    images, texts = unit(draw.normal(size=(20, 3))), unit(draw.normal(size=(45, 3)))
    owner = np.concatenate([np.arange(20), draw.integers(0, 20, 25)])
    right = (owner, np.arange(45))
    scores = (images @ texts.T).numpy()
    found = retrieval(images, texts, right, block=block)
    assert found.image_to_text == pytest.approx(naive(scores, right), abs=1e-6)
    assert found.text_to_image == pytest.approx(naive(scores.T, right[::-1]), abs=1e-6)
    assert (found.images, found.texts) == (20, 45)


def test_a_collapsed_model_finds_nothing():
    found = retrieval(torch.ones(12, 2), torch.ones(12, 2), one_to_one(12))
    assert found.image_to_text == found.text_to_image == {1: 0.0, 5: 0.0, 10: 0.0}


def test_a_perfect_model_finds_everything():
    rows = torch.eye(12)
    found = retrieval(rows, rows, one_to_one(12))
    assert found.to_dict() == {
        "image_to_text": {"R@1": 1.0, "R@5": 1.0, "R@10": 1.0},
        "text_to_image": {"R@1": 1.0, "R@5": 1.0, "R@10": 1.0},
        "images": 12,
        "texts": 12,
    }


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
    words = rf"the {tower} tower gives vectors with NaN or infinity for 1 of \d+ {tower}s; its weights are damaged"
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
