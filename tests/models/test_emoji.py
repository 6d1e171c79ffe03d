"""The weights of `emoji` that ship, on pictures in a style that their training never saw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipcond import Scorer
from clipcond.resources import embedded_dual

PICTURES = Path(__file__).parents[2] / "docs" / "images" / "emoji"


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.load("emoji", device="cpu")


@pytest.fixture(scope="module")
def pictures(scorer: Scorer) -> np.ndarray:
    """The vectors of all pictures, (N, P), in the order of their names."""
    files = sorted(PICTURES.glob("*.png"))
    assert len(files) > 100
    vectors: np.ndarray = scorer.dual.image.embed([Image.open(file).convert("RGB") for file in files]).double().numpy()
    return vectors


@pytest.fixture(scope="module")
def ranks(scorer: Scorer, pictures: np.ndarray) -> np.ndarray:
    """Of each picture, how many of all labels are nearer than its own, which its file is named by."""
    labels = [file.stem.replace("-", " ") for file in sorted(PICTURES.glob("*.png"))]
    texts = np.stack([each.vector for each in scorer.texts([f"a picture of {label}" for label in labels])])
    scores = pictures @ texts.T
    return (scores > scores.diagonal()[:, None]).sum(1)


def test_it_names_what_is_drawn_as_it_has_never_seen_far_beyond_chance(ranks: np.ndarray) -> None:
    assert (ranks < 1).mean() > 0.87  # by lot 0.7 %
    assert (ranks < 5).mean() > 0.95


def test_it_knows_kinds_by_their_names(pictures: np.ndarray, scorer: Scorer) -> None:
    (vehicle,) = scorer.texts(["vehicle"])
    nearest = np.argsort(-(pictures @ vehicle.vector))[:5]
    found = {sorted(PICTURES.glob("*.png"))[number].stem for number in nearest}
    assert found <= {
        "suspension-railway", "kick-scooter", "minibus", "fire-engine", "oncoming-taxi", "tram-car", "oncoming-bus",
    }  # fmt: skip


def test_licences_of_all_pictures_that_it_was_trained_on_stand_beside_it() -> None:
    folder = embedded_dual("emoji")
    assert folder is not None
    licences = {each["set"]: each["licence"] for each in json.loads((folder / "licences.json").read_text("utf-8"))}
    assert set(licences.values()) == {"Apache-2.0", "CC-BY-4.0", "CC0-1.0", "MIT"}
    assert "openmoji" not in licences  # share-alike: it measures


def test_words_that_no_caption_had_are_zero(scorer: Scorer) -> None:
    rows = scorer.dual.image.model.token_embedding.weight.abs().amax(1) > 0
    assert 3_000 < int(rows.sum()) < 5_000
    assert sum(path.stat().st_size for path in embedded_dual("emoji").iterdir()) <= 12 * 2**20
