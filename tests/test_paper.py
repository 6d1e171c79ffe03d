"""The parts of benchmarks/paper.py that need no model: what decides a claim, and the captions that are nearly right."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("benchmarks/ is not part of an installed clipcond", allow_module_level=True)


def module(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module(name)


F, MEASURES, TRAINING = (module(name) for name in ("paper_findings", "paper_measures", "paper_training"))
DATA, PAGE = module("paper_data"), module("paper_page")


def measured(low, high, chance=None):
    interval = F.Interval(value=(low + high) / 2, low=low, high=high, level=0.95)
    return F.Measured(name="x", interval=interval, count=10, chance=chance)


@pytest.mark.parametrize(
    ("low", "high", "below", "said"),
    [
        (0.1, 0.2, False, F.HOLDS), (-0.2, -0.1, False, F.FAILS), (-0.1, 0.1, False, F.OPEN), (0.0, 0.1, False, F.OPEN),
        (-0.2, -0.1, True, F.HOLDS), (0.1, 0.2, True, F.FAILS), (-0.1, 0.0, True, F.OPEN),
    ],
)  # fmt: skip
def test_the_whole_interval_decides(low, high, below, said):
    assert F.verdict(measured(low, high), below=below) == said


def test_chance_is_reached_from_above_and_left_from_below():
    assert F.at_chance(measured(0.2, 0.3, chance=0.2)) == F.HOLDS
    assert F.at_chance(measured(0.21, 0.3, chance=0.2)) == F.FAILS
    assert F.above_chance(measured(0.2, 0.3, chance=0.2)) == F.FAILS
    assert F.above_chance(measured(0.21, 0.3, chance=0.2)) == F.HOLDS
    assert F.not_below(measured(-0.2, 0.0)) == F.HOLDS
    assert F.not_below(measured(-0.2, -0.1)) == F.FAILS


def test_pictures_of_one_emoji_are_drawn_together():
    right = [1, 1, 1, 1, 0, 0, 0, 0]
    of_two = F.share("x", right, [1, 1, 1, 1, 2, 2, 2, 2]).interval
    assert (of_two.value, of_two.low, of_two.high) == (0.5, 0.0, 1.0)
    apart = F.share("x", right, range(8)).interval
    assert 0 < apart.low < 0.5 < apart.high < 1
    same = F.difference("x", right, right, range(8)).interval
    assert (same.low, same.value, same.high) == (0, 0, 0)


def test_a_line_of_logits_is_found_again_and_what_lies_on_it_is_not_robust():
    plain = np.array([0.2, 0.4, 0.6, 0.8])
    shifted = 1 / (1 + np.exp(-(0.5 * np.log(plain / (1 - plain)) - 1)))
    line = F.fit_line(plain, shifted, 1000)
    assert line.slope == pytest.approx(0.5)
    assert line.offset == pytest.approx(-1)
    # 60 % without the shift go with 1 / (1 + exp(1 - 0.5 ln 1.5)) = 31.06 % under it
    assert float(line(0.6)) == pytest.approx(0.310610, abs=1e-6)
    answers, clusters = [1] * 60 + [0] * 40, list(range(100))
    found = F.effective_robustness("x", answers, [1] * 50 + [0] * 50, line, clusters, clusters).interval
    assert found.value == pytest.approx(0.5 - 0.310610, abs=1e-6)
    assert found.low < found.value < found.high
    assert F.verdict(measured(found.low, found.high)) == F.HOLDS


def test_logits_stay_finite_where_all_or_nothing_is_right():
    assert F.logit([0, 1], 50).tolist() == pytest.approx([-math.log(99), math.log(99)])


def words(text):
    return Counter(text.split())


def test_wrong_captions_have_the_words_of_the_right_ones():
    pairs = [F.sides("cat", "dog"), F.attributes(("red", "heart"), ("blue", "circle")), *F.without("cat", "dog")]
    for true, false in pairs:
        assert true != false
        assert words(true) == words(false)
    assert pairs[1] == ("red heart and blue circle", "blue heart and red circle")
    assert pairs[2:] == [("cat without dog", "dog without cat"), ("no dog but cat", "no cat but dog")]


def test_labels_are_mirrored_only_where_they_name_one_side():
    assert F.mirrored("right arrow curving up") == "left arrow curving up"
    assert F.mirrored("leftwards hand") == "rightwards hand"
    assert F.mirrored("left-facing fist") is None
    assert F.mirrored("right arrow curving left") is None
    assert F.mirrored("copyright") is None


def test_labels_one_word_apart_and_one_word_longer():
    labels = [
        "cat",
        "black cat",
        "grinning cat",
        "grinning face",
        "dog",
        "cat with tears of joy",
        "face with tears of joy",
    ]
    assert F.one_word_apart(labels) == {
        "black cat": ["grinning cat"], "grinning cat": ["black cat", "grinning face"],
        "grinning face": ["grinning cat"], "cat with tears of joy": ["face with tears of joy"],
        "face with tears of joy": ["cat with tears of joy"],
    }  # fmt: skip
    assert F.one_word_more(labels) == {"cat": ["black cat", "grinning cat"]}


def test_people_are_found_by_their_three_labels():
    labels = ["cook", "man cook", "woman cook", "person running", "man running", "woman running", "mage", "man mage"]
    assert F.people_of(labels) == [
        ("cook", "man cook", "woman cook"), ("person running", "man running", "woman running"),
    ]  # fmt: skip


def test_plurals():
    assert [MEASURES.plural(word) for word in ("cat", "fox", "cherry", "monkey")] == [
        "cats",
        "foxes",
        "cherries",
        "monkeys",
    ]


def test_ties_count_against_the_right_label():
    classes = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    vectors = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
    assert MEASURES.ranks_of(vectors, classes, np.array([0, 1, 2])).tolist() == [0, 1, 2]


def test_a_thing_is_on_the_canvas_as_often_as_it_is_counted():
    black = np.zeros((64, 64, 3), np.uint8)
    dark = [int((MEASURES.copies(black, count)[..., 0] < 128).sum()) for count in range(1, 6)]
    assert dark == [21 * 21 * count for count in range(1, 6)]
    pair = MEASURES.beside(black, np.full((64, 64, 3), 200, np.uint8))
    assert pair[32, 8].tolist() == [0, 0, 0]
    assert pair[32, 56].tolist() == [200, 200, 200]


def test_augmentation_never_mirrors():
    pictures = torch.ones(200, 3, 64, 64)
    pictures[..., :32] = 0  # dark on the left
    moved = TRAINING.moved(pictures, torch.Generator().manual_seed(0))
    left, right = moved[..., :24].mean(dim=(1, 2, 3)), moved[..., 40:].mean(dim=(1, 2, 3))
    assert bool((left < right).all())
    coloured = TRAINING.recoloured(pictures, torch.Generator().manual_seed(0))
    assert float(coloured.min()) >= 0
    assert float(coloured.max()) <= 1


def test_words_are_scored_by_their_divergence():
    known = ["cat", "dog", "face"]
    wanted = TRAINING.bags(["Cat", "dog face", "dog dog", "fox"], known)
    assert wanted.tolist() == [[1, 0, 0], [0, 0.5, 0.5], [0, 1, 0], [0, 0, 0]]
    shares = torch.tensor([[0.2, 0.4, 0.4]])
    found = TRAINING.divergence_scores(shares.log(), wanted)[0].tolist()
    # minus Σ t log(t / p): log 0.2; log 0.4 - log 0.5; log 0.4; nothing is known of a fox
    assert found[:3] == pytest.approx([math.log(0.2), math.log(0.8), math.log(0.4)], abs=1e-6)
    assert found[3] == -math.inf


def test_every_picture_comes_once_before_any_comes_again():
    batches = TRAINING.orders(np.arange(10), 4, torch.device("cpu"), 0)
    rows = torch.cat([next(batches) for _ in range(5)]).tolist()
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))


def test_a_tenth_is_left_out_whoever_asks():
    out = [DATA.left_out("noto", f"{code:x}") for code in range(5000)]
    assert 0.085 < np.mean(out) < 0.115
    assert out[:40] == [DATA.left_out("noto", f"{code:x}") for code in range(40)]


def test_a_page_keeps_what_is_outside_of_the_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter \\1\n", encoding="utf-8")
    PAGE.put(page, {"a": "new \\g<1>\n"})
    assert page.read_text(encoding="utf-8") == "before\n<!-- a: begin -->\nnew \\g<1>\n<!-- a: end -->\nafter \\1\n"
    with pytest.raises(SystemExit, match="has no marks for 'b'"):
        PAGE.put(page, {"b": ""})


def test_the_page_has_marks_for_all_that_is_measured():
    page = (BENCHMARKS.parent / "docs" / "emoji.md").read_text(encoding="utf-8")
    for part in ("numbers", "uses", "paper", "trainings", "details"):
        assert page.count(f"<!-- {part}: begin -->\n") == page.count(f"<!-- {part}: end -->\n") == 1
