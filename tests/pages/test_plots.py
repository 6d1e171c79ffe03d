"""Plots as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipcond.errors import ModelError, OptionsError, OutputExists, ResourceMissing
from clipcond.pages.confusion_plot import confusion_plot
from clipcond.pages.plots import check_plot
from clipcond.score.classification import compare_with_truth

pytest.importorskip("matplotlib")


def test_a_confusion_is_drawn_with_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    shares = np.eye(3)[[0, 0, 1, 2]] * 0.7 + 0.1
    measured = compare_with_truth(shares, [0, 1, 1, 0])
    texts, ticks = [], []
    text, set_yticks = Axes.text, Axes.set_yticks
    monkeypatch.setattr(Axes, "text", lambda self, x, y, s, **k: (texts.append((y, x, s)), text(self, x, y, s, **k))[1])
    monkeypatch.setattr(
        Axes, "set_yticks", lambda self, at, names, **k: (ticks.extend(names), set_yticks(self, at, names, **k))[1]
    )
    labels = ["a $ b $", "名前", "c" * 90]
    first = confusion_plot(measured, labels, "svg")
    assert sorted(texts) == [(0, 0, "1"), (0, 2, "1"), (1, 0, "1"), (1, 1, "1")]
    assert [name.rpartition("  ")[2] for name in ticks] == ["50%", "50%", "–"]
    assert first == confusion_plot(measured, labels, "svg")
    assert confusion_plot(measured, labels, "png").startswith(b"\x89PNG")


def test_many_classes_are_drawn_without_names() -> None:
    measured = compare_with_truth(np.eye(99), list(range(99)))
    assert confusion_plot(measured, [str(number) for number in range(99)], "png").startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_plot(tmp_path / "a.PNG")
    with pytest.raises(OptionsError, match=r"a\.pdf: expected a name that ends in \.png or \.svg"):
        check_plot(tmp_path / "a.pdf")
    (tmp_path / "a.svg").touch()
    with pytest.raises(OutputExists):
        check_plot(tmp_path / "a.svg")
    with pytest.raises(ResourceMissing, match="there is no folder"):
        check_plot(tmp_path / "none" / "a.svg")
    monkeypatch.setattr("clipcond.pages.plots.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"clipcond\[plots\]"):
        check_plot(tmp_path / "b.svg")
