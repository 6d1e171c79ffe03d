"""Things found in pictures of the scene world, by patches and by windows, in squares and in long pictures."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipcond.encode.patch_tower import PatchTower
from clipcond.find.classify import build_classifier
from clipcond.find.detect import HeatEye, detect
from clipcond.find.heat_maps import HeatMaps, PatchMaps, WindowMaps, alone, ground_of, map_shape, windows_of
from clipcond.find.labels import Label
from clipcond.images.places import CELLS, cell_at
from clipcond.images.preprocess import Preprocess
from clipcond.mini import world
from clipcond.rerank.scorer import Scorer

NAMES = ("a red circle", "a blue star", "a green cross")
LABELS = tuple(Label(name=name, texts=(name,)) for name in NAMES)


def scene(*things: tuple[str, str, str]) -> Image.Image:
    objects = tuple(world.Object(colour=colour, shape=shape, cell=cell) for colour, shape, cell in things)
    return world.render(world.Scene("gray", objects), random.Random(1))


@pytest.fixture(scope="module")
def maps(mini_scorer: Scorer) -> dict[str, HeatMaps]:
    vectors = build_classifier(mini_scorer, LABELS).vectors
    tower = mini_scorer.dual.image
    return {"patches": PatchMaps(PatchTower("mini", tower), tower, vectors), "windows": WindowMaps(tower, vectors)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("detect")
    two = scene(("red", "circle", "top left"), ("blue", "star", "bottom center"), ("red", "circle", "middle right"))
    two.resize((192, 192)).save(root / "two.png")
    long = Image.new("RGB", (192, 64))
    for number, thing in enumerate(
        [("black", "ring", "center"), ("white", "ring", "center"), ("green", "cross", "top right")]
    ):
        long.paste(scene(thing), (64 * number, 0))
    long.save(root / "long.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, clockwise
    long.transpose(Image.Transpose.ROTATE_90).save(root / "turned.png", exif=exif)
    (root / "none.png").write_text("no picture")
    return root


@pytest.mark.parametrize(("method", "least"), [("patches", 0.5), ("windows", 0.18)])
def test_things_are_found_where_they_are(maps: dict[str, HeatMaps], folder: Path, method: str, least: float) -> None:
    ((picture,), unread) = detect([folder / "two.png"], HeatEye(maps[method]), LABELS, min_score=least)
    assert unread == ()
    assert {(each.label, each.place) for each in picture.found} == {
        ("a red circle", "top left"), ("a red circle", "middle right"), ("a blue star", "bottom center"),
    }  # fmt: skip
    assert picture.absent == ("a green cross",)
    for each in picture.found:
        left, top, right, bottom = each.box
        assert 0 <= left < right <= 192
        assert 0 <= top < bottom <= 192
        assert cell_at((left + right) / 384, (top + bottom) / 384) == each.place
    assert picture.heat is None


def test_doubt_and_scores(maps: dict[str, HeatMaps], folder: Path) -> None:
    ((picture,), _) = detect([folder / "two.png"], HeatEye(maps["patches"]), LABELS, keep_heat=True)
    doubtful = [each for each in picture.found if each.label == "a green cross"]
    assert {each.rather for each in doubtful} <= {"a red circle", "a blue star"}
    assert all(each.rather is None for each in picture.found if each not in doubtful)
    assert picture.heat is not None
    assert picture.heat.shape == (3, 64, 64)
    best = {name: max(each.score for each in picture.found if each.label == name) for name in NAMES}
    assert best["a green cross"] < 0.5 < min(best["a red circle"], best["a blue star"])
    ((some,), _) = detect([folder / "two.png"], HeatEye(maps["patches"]), LABELS, min_score=0.5, most=1)
    assert [each.label for each in some.found] == ["a red circle", "a blue star"]
    document = some.to_json()
    assert document["absent"] == ["a green cross"]
    assert list(document) == ["path", "width", "height", "found", "absent"]


@pytest.mark.parametrize("method", ["patches", "windows"])
def test_long_pictures_are_seen_to_their_ends_and_upright(maps: dict[str, HeatMaps], folder: Path, method: str) -> None:
    progress: list[int] = []
    paths = [folder / "long.png", folder / "none.png", folder / "turned.png"]
    pictures, unread = detect(paths, HeatEye(maps[method]), LABELS, most=1, on_progress=progress.append)
    assert [(each.path.name, each.error) for each in unread] == [
        ("none.png", "is not a picture in a format that can be read")
    ]
    assert progress == [1, 1, 1]
    for picture in pictures:
        assert (picture.width, picture.height) == (192, 64)
        (cross,) = [each for each in picture.found if each.label == "a green cross"]
        left, top, right, bottom = cross.box
        assert 160 < (left + right) / 2 < 192
        assert (top + bottom) / 2 < 26
        assert cross.place == "top right"


def test_a_narrow_ground_is_read_from_the_frame_and_windows_cover_all() -> None:
    picture = scene(("red", "circle", "center"))
    assert ground_of(picture) == world.BACKGROUNDS["gray"]
    boxes = windows_of(100, 40, 4)
    assert boxes[0] == (0, 0, 25, 25)
    assert boxes[-1] == (75, 15, 100, 40)
    seen = np.zeros((40, 100), dtype=int)
    for left, top, right, bottom in boxes:
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1
    assert windows_of(3, 1, 4)[-1] == (2, 0, 3, 1)
    one = alone(Image.new("RGB", (100, 40), "red"), (90, 0, 100, 10), (1, 2, 3))
    assert one.size == (100, 40)
    assert one.getpixel((95, 5)) == (255, 0, 0)
    assert one.getpixel((80, 5)) == (1, 2, 3)


def test_maps_have_square_places() -> None:
    assert map_shape(640, 640) == (64, 64)
    assert map_shape(200, 100) == (64, 128)
    assert map_shape(10, 100_000) == (1024, 64)
    assert map_shape(1, 1) == (64, 64)


def test_cells() -> None:
    assert [cell_at(x, y) for y in (0.1, 0.5, 0.9) for x in (0.1, 0.5, 0.9)] == list(CELLS) == list(world.CELLS)
    assert (cell_at(-0.1, 1.0), cell_at(1.0, 0.0)) == ("bottom left", "top right")


_CROP = Preprocess(height=10, width=10, mean=(0.5,) * 3, std=(0.5,) * 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("preprocess", "size", "parts"),
    [
        (_CROP, (20, 20), [(0, 0, 20, 20)]),
        (_CROP, (40, 20), [(10, 0, 30, 20)]),
        (replace(_CROP, policy="squash"), (40, 20), [(0, 0, 40, 20)]),
        (replace(_CROP, policy="longest"), (40, 20), [(0, -8, 40, 32)]),
        (replace(_CROP, policy="tiles"), (20, 50), [(0, 0, 20, 20), (0, 16, 20, 36), (0, 30, 20, 50)]),
        (replace(_CROP, short=20), (20, 20), [(5, 5, 15, 15)]),
    ],
)
def test_parts_say_what_crops_show(
    preprocess: Preprocess, size: tuple[int, int], parts: list[tuple[float, float, float, float]]
) -> None:
    assert [pytest.approx(part) for part in parts] == list(preprocess.parts(*size))
    assert len(parts) == len(preprocess.crops(Image.new("RGB", size)))


class FixedMaps:
    """Maps that are given."""

    def __init__(self, *maps: list[list[float]]) -> None:
        self._maps = np.array(maps, dtype=np.float32)

    def of(self, image: Image.Image) -> np.ndarray:
        return self._maps


def test_of_a_label_without_a_certain_place_the_best_is_told(folder: Path) -> None:
    zero = [0.0] * 5
    one = [[0.9, 0, 0.8, 0, 0.85], zero, zero]
    other = [[0.5, 0, 0.9, 0, 0.55], zero, zero]  # in the middle it is better than the first
    third = [[0.6, 0, 0.62, 0, 0], zero, zero]  # nowhere the best
    eye = HeatEye(FixedMaps(one, other, third))
    ((picture,), _) = detect([folder / "two.png"], eye, LABELS)
    told = [(each.label, round(each.score, 2), each.rather) for each in picture.found]
    assert told == [
        ("a red circle", 0.9, None), ("a red circle", 0.85, None), ("a blue star", 0.9, None),
        ("a green cross", 0.62, "a blue star"),
    ]  # fmt: skip
    ((sure,), _) = detect([folder / "two.png"], eye, LABELS, sure=True)
    assert [each.label for each in sure.found] == ["a red circle", "a red circle", "a blue star"]
    assert sure.absent == ("a green cross",)
    ((few,), _) = detect([folder / "two.png"], eye, LABELS, most=1)
    assert [each.label for each in few.found] == ["a red circle", "a blue star", "a green cross"]
