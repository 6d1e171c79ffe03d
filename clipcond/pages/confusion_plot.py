"""The plot of a classification with known labels: for each class, what its pictures were taken for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clipcond.pages.plots import drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from clipcond.score.classification import Classified

_NAMED, _COUNTED = 60, 25  # classes up to which each is named, and its pictures are counted
_LONGEST = 24  # characters of a name


def confusion_plot(measured: Classified, labels: Sequence[str], form: str) -> bytes:
    """Draw the confusion as a `png` or `svg`: rows are right labels with their recall, columns answers; a row sums to all.

    labels: C names.
    """
    side = min(14.0, 3.2 + 0.42 * len(labels)) if len(labels) <= _NAMED else 10.0
    return drawn(lambda figure: _draw(measured, labels, figure), form, (side + 1.6, side + 0.6))


def _draw(measured: Classified, labels: Sequence[str], figure: Figure) -> None:
    counts = measured.confusion
    pictures = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, pictures, out=np.zeros(counts.shape), where=pictures > 0)
    axes = figure.subplots()
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    if len(labels) <= _NAMED:
        _name(axes, measured, labels)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    if len(labels) <= _COUNTED:
        for row, column in zip(*counts.nonzero(), strict=True):
            dark = shares[row, column] > 0.5
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=9,
                      color="white" if dark else "#222222")  # fmt: skip
    named = " (and its recall)" if len(labels) <= _NAMED else ""
    axes.set(xlabel="answer", ylabel=f"right label{named}")
    axes.set_title(
        f"accuracy {measured.accuracy:.1%} of {measured.count:,} pictures\n"
        f"mean recall {measured.mean_recall:.1%}, calibration error {measured.calibration_error:.1%}",
        fontsize=11,
    )
    figure.colorbar(image, ax=axes, shrink=0.7, label="of the class (%)")


def _name(axes: Axes, measured: Classified, labels: Sequence[str]) -> None:
    """Names beside the rows with each class's recall, and below the columns."""
    short = [_short(label) for label in labels]
    recall = ["–" if np.isnan(share) else f"{share:.0%}" for share in measured.recall]
    places, small = range(len(labels)), 9 if len(labels) <= _COUNTED else 6
    axes.set_xticks(places, short, rotation=90 if len(labels) > 6 else 30, fontsize=small,
                    ha="center" if len(labels) > 6 else "right", rotation_mode=None if len(labels) > 6 else "anchor")  # fmt: skip
    axes.set_yticks(places, [f"{name}  {share}" for name, share in zip(short, recall, strict=True)], fontsize=small)


def _short(label: str) -> str:
    """A name that fits beside a plot; a dollar sign is no formula."""
    shown = label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
    return shown.replace("$", r"\$")
