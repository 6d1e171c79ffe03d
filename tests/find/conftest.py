"""Pictures of one circle each, sorted by its colour, and the embedded model to look at them with."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from clipcond.find.gallery import Gallery, gallery
from clipcond.mini import world
from clipcond.rerank.scorer import Scorer

COLOURS = ("red", "blue", "green", "yellow")


@pytest.fixture(scope="session")
def mini_scorer() -> Scorer:
    return Scorer.load("mini", device="cpu")


@pytest.fixture(scope="session")
def sorted_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each colour, three pictures in each, a circle in any cell."""
    root, rng = tmp_path_factory.mktemp("find") / "sorted", random.Random(5)
    for colour in COLOURS:
        (root / colour).mkdir(parents=True)
        for number in range(3):
            thing = world.Object(colour=colour, shape="circle", cell=rng.choice(world.CELLS))
            scene = world.Scene(background="gray", objects=(thing,))
            world.render(scene, rng).save(root / colour / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def pictures(sorted_pictures: Path, mini_scorer: Scorer) -> Gallery:
    return gallery(sorted(sorted_pictures.rglob("*.png")), mini_scorer)
