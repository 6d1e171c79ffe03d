from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from clipcond.images.colour import to_rgb
from clipcond.images.preprocess import Preprocess
from clipcond.train.augment import Augmentation, AugmentedPixels
from clipcond.train.batches import Batches
from clipcond.train.data import read_pairs
from clipcond.train.loop import train
from clipcond.train.pixels import Pixels

HALF = (0.5, 0.5, 0.5)
SMALL = Preprocess(height=16, width=16, mean=HALF, std=HALF)


def ramp():
    """A picture whose red says how far right and whose green how far down."""
    across, down = np.meshgrid(np.linspace(0, 255, 64), np.linspace(0, 255, 48))
    return Image.fromarray(np.stack([across, down, np.full_like(down, 128)], axis=2).astype(np.uint8))


@pytest.mark.parametrize("crop", [0.9, 0.25])
def test_a_crop_is_a_part_of_the_area_that_was_asked_for(crop):
    shares, lefts = [], set()
    for seed in range(40):
        pixels = Augmentation(crop=crop)(ramp(), SMALL, np.random.default_rng(seed)).astype(float)
        assert pixels.shape == (16, 16, 3)
        wide = np.ptp(pixels[..., 0]) / np.ptp(SMALL.pixels(ramp().resize((64, 64)))[..., 0])
        high = np.ptp(pixels[..., 1]) / np.ptp(SMALL.pixels(ramp().resize((64, 64)))[..., 1])
        shares.append(wide * high)
        lefts.add(int(pixels[..., 0].min()))
    assert crop - 0.1 < min(shares) < crop + 0.2
    assert max(shares) <= 1.1
    assert len(lefts) > 5


def test_colours_change_and_places_stay():
    plain = Augmentation()(ramp(), SMALL, np.random.default_rng(0)).astype(float)
    assert np.array_equal(plain, SMALL.pixels(ramp()))
    seen = [Augmentation(jitter=0.4)(ramp(), SMALL, np.random.default_rng(n)).astype(float) for n in range(8)]
    assert len({each.mean() for each in seen}) == 8
    for each in seen:
        assert np.corrcoef(each[..., 0].ravel(), plain[..., 0].ravel())[0, 1] > 0.9


def test_a_turn_moves_what_is_off_the_middle_and_fills_corners_with_their_own_colour():
    white = Image.new("RGB", (64, 64), "white")
    white.paste((0, 0, 255), (28, 4, 36, 12))  # above the middle
    places = []
    for seed in range(20):
        pixels = Augmentation(turn=30)(white, SMALL, np.random.default_rng(seed)).astype(int)
        assert pixels.shape == (16, 16, 3)
        assert pixels[[0, 0, -1, -1], [0, -1, 0, -1]].min() == 255
        weight = 255 - pixels[..., 0]
        places.append((weight * np.arange(16)).sum() / weight.sum() - 7.5)
    assert min(places) < -1.5
    assert max(places) > 1.5
    assert max(map(abs, places)) <= 6 * np.sin(np.radians(30)) + 0.3  # the middle of the square is 24 of 64 pixels up


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_a_picture_of_any_mode_is_turned_as_its_colours_are(mode):
    seen = Image.new("L", (32, 32), 200)
    seen.paste(30, (12, 4, 20, 12))
    other = Image.fromarray(np.asarray(seen).astype(np.uint16) * 257) if mode == "I;16" else seen.convert(mode)
    assert other.mode == mode
    turned = [Augmentation(turn=30)(image, SMALL, np.random.default_rng(3)) for image in (other, to_rgb(other))]
    assert np.array_equal(*turned)


def test_a_share_of_the_pictures_is_grey():
    grey = [
        np.ptp(Augmentation(grey=0.25)(ramp(), SMALL, np.random.default_rng(n)), axis=2).max() == 0 for n in range(200)
    ]
    assert 30 <= sum(grey) <= 70


def test_nothing_to_change_is_no_augmentation():
    assert not Augmentation()
    assert all(Augmentation(**each) for each in ({"crop": 0.9}, {"jitter": 0.1}, {"turn": 1.0}, {"grey": 0.1}))


def test_pictures_depend_on_seed_step_and_row_alone(pairs_csv):
    pairs = read_pairs(pairs_csv)
    given = {"batch_size": 6, "seed": 3}
    augmented = AugmentedPixels(pairs, SMALL, Augmentation(crop=0.5, jitter=0.2), seed=3)
    whole = list(Batches(pairs, augmented, **given).ahead(0, 5))
    later = next(iter(Batches(pairs, augmented, **given).ahead(4, 5)))
    assert np.array_equal(whole[4].pixels, later.pixels)
    rows = np.arange(6)
    assert np.array_equal(augmented.at(1, rows)[[2, 4]], augmented.at(1, rows[[2, 4]]))
    assert not np.array_equal(augmented.at(1, rows), augmented.at(2, rows))
    assert not np.array_equal(augmented.at(1, rows), Pixels(pairs, SMALL, 1.0)[rows])


def test_a_run_augments_its_pictures(config):
    assert (
        train(replace(config, random_crop=0.8, colour_jitter=0.2, random_turn=10.0, random_grey=0.2, steps=3)).steps
        == 3
    )


def test_a_large_picture_is_turned_at_a_part_of_its_size_and_looks_the_same(monkeypatch):
    large, sizes, rotate = ramp().resize((640, 480)), [], Image.Image.rotate
    monkeypatch.setattr(
        Image.Image, "rotate", lambda self, *rest, **more: sizes.append(self.size) or rotate(self, *rest, **more)
    )
    found = Augmentation(turn=20)(large, SMALL, np.random.default_rng(1)).astype(int)
    degrees = np.random.default_rng(1).uniform(-20, 20)
    expected = SMALL.pixels(rotate(large, degrees, fillcolor=(128, 128, 128))).astype(int)
    assert sizes == [(43, 32)]  # a fifteenth: 32 is twice what the model sees
    assert np.abs(found - expected)[4:12, 4:12].max() <= 4
