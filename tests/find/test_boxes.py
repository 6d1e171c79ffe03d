"""From heat to boxes, on maps that are made for it."""

from __future__ import annotations

import numpy as np
import pytest

from clipcond.find.boxes import Region, overlap, regions_of, scaled, spread, strongest


def heat(rows: int = 8, columns: int = 8, **spots: float) -> np.ndarray:
    """Zeros with squares of 2×2: `y2x4=1.0` at row 2, column 4."""
    found = np.zeros((rows, columns), dtype=np.float32)
    for name, value in spots.items():
        y, x = map(int, name[1:].split("x"))
        found[y : y + 2, x : x + 2] = value
    return found


@pytest.mark.parametrize(
    ("other", "expected"),
    [((0, 0, 2, 2), 1.0), ((1, 0, 3, 2), 1 / 3), ((0, 0, 1, 1), 0.25), ((2, 0, 4, 2), 0.0), ((5, 5, 6, 6), 0.0)],
)
def test_overlap(other: tuple[float, float, float, float], expected: float) -> None:
    assert overlap((0, 0, 2, 2), other) == pytest.approx(expected)
    assert overlap(other, (0, 0, 2, 2)) == pytest.approx(expected)


def test_regions_are_around_peaks_hottest_first() -> None:
    first, second = regions_of(heat(y1x1=0.9, y5x4=1.0))
    assert (first.box, first.score, first.peak) == ((4, 5, 6, 7), 1.0, (4.5, 5.5))
    assert second.box == (1, 1, 3, 3)
    assert second.score == pytest.approx(0.9)


def test_a_weak_peak_is_none() -> None:
    assert len(regions_of(heat(y1x1=0.79, y5x4=1.0))) == 1
    assert len(regions_of(heat(y1x1=0.81, y5x4=1.0))) == 2


def test_a_shoulder_is_part_of_its_peak() -> None:
    one = heat(y2x2=1.0)
    one[2:4, 4:6] = 0.85  # touches it
    (region,) = regions_of(one)
    assert region.box == (2, 2, 6, 4)
    one[2:4, 4:6] = 0.55  # below the level of a box
    assert regions_of(one)[0].box == (2, 2, 4, 4)


def test_corners_do_not_hang_together() -> None:
    assert len(regions_of(heat(y2x2=1.0, y4x4=1.0))) == 2


def test_the_floor_is_the_median_or_given() -> None:
    raised = heat(y1x1=0.9, y5x4=1.0) + 5
    assert [each.score for each in regions_of(raised)] == pytest.approx([6.0, 5.9])
    assert len(regions_of(raised, floor=0.0)) == 1, "everything is hot, over nothing"
    assert regions_of(raised, floor=0.0)[0].box == (0, 0, 8, 8)
    assert regions_of(heat()) == ()
    assert regions_of(np.full((3, 5), 0.7, dtype=np.float32)) == ()


def test_of_overlapping_regions_the_better_stays() -> None:
    def region(score: float, left: float) -> Region:
        return Region(box=(left, 0, left + 4, 4), score=score, peak=(left, 0))

    weak, strong, far = region(0.5, 1), region(0.9, 0), region(0.4, 3)
    assert strongest([weak, far, strong], 5) == (strong, far)
    assert strongest([weak, far, strong], 1) == (strong,)
    assert strongest([], 5) == ()


def test_scaled() -> None:
    region = scaled(Region(box=(1, 2, 3, 4), score=0.5, peak=(1.5, 2.5)), 10, 100)
    assert (region.box, region.peak, region.score) == ((10, 200, 30, 400), (15, 250), 0.5)


def test_a_map_is_spread_linearly_between_its_places() -> None:
    one = np.array([[[0.0, 4.0]]], dtype=np.float32)
    wide = spread([one], [(0, 0, 8, 4)], (8, 4), (1, 8))
    assert wide[0, 0] == pytest.approx([0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4])
    same = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    assert spread([same], [(0, 0, 30, 20)], (30, 20), (2, 3)) == pytest.approx(same)


def test_of_overlapping_parts_the_inner_counts() -> None:
    left, right = (np.full((1, 4, 4), value, dtype=np.float32) for value in (1.0, 2.0))
    whole = spread([left, right], [(0, 0, 6, 6), (4, 0, 10, 6)], (10, 6), (6, 10))
    row = whole[0, 3]
    assert row[:4] == pytest.approx(1, abs=1e-4)
    assert row[6:] == pytest.approx(2, abs=1e-4)
    assert (np.diff(row) > -1e-5).all()
    assert 1.1 < row[4] < row[5] < 1.9


def test_a_part_may_reach_beyond_the_picture() -> None:
    padded = np.array([[[9.0, 1.0, 2.0, 9.0]]], dtype=np.float32)  # with a place of padding on both sides
    assert spread([padded], [(-4, 0, 12, 4)], (8, 4), (1, 2))[0, 0] == pytest.approx([1, 2])
