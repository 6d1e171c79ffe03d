"""The plot of a probe: accuracy over examples a class, beside zero-shot."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from clipcond.errors import ModelError

if TYPE_CHECKING:
    from clipcond.find.probe import ProbeReport


def probe_plot(report: ProbeReport, form: str) -> bytes:
    """Draw a report as a `png` or `svg`. Raises ModelError without matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModelError('a plot needs matplotlib, which is not installed: pip install "clipcond[plots]"') from error
    few = [row for row in report.rows if row.shots is not None]
    names = [str(row.shots) if row.shots is not None else "all" for row in report.rows]
    places = list(range(len(report.rows)))
    with rc_context({"svg.hashsalt": "clipcond", "svg.fonttype": "path", "font.size": 11}):
        figure = Figure(figsize=(7.2, 4.4), facecolor="white", layout="constrained")
        axes = figure.subplots()
        axes.axhline(100 * report.zero_shot, color="#777777", linestyle=":", label="zero-shot")
        axes.plot(places, [100 * row.probe for row in report.rows], "s-", color="#b3541e", label="probe from nothing")
        axes.plot(places, [100 * row.from_zero_shot for row in report.rows], "o-", color="#1f5fa8",
                  label="probe from zero-shot")  # fmt: skip
        for place, row in zip(places, few, strict=False):
            half = 50 * row.spread
            axes.vlines(place, 100 * row.from_zero_shot - half, 100 * row.from_zero_shot + half, color="#1f5fa8", lw=1)
        axes.set_xticks(places, names)
        axes.set(xlabel="examples a class", ylabel="accuracy (%)")
        axes.set_title(f"{report.classes} classes, {report.test:,} test pictures", fontsize=11)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()
