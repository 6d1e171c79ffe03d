"""The plot of a probe: accuracy over examples a class, beside zero-shot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipcond.pages.plots import drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from clipcond.find.probe import ProbeReport


def probe_plot(report: ProbeReport, form: str) -> bytes:
    """Draw a report as a `png` or `svg`."""
    return drawn(lambda figure: _draw(report, figure), form, (7.2, 4.4))


def _draw(report: ProbeReport, figure: Figure) -> None:
    few = [row for row in report.rows if row.shots is not None]
    names = [str(row.shots) if row.shots is not None else "all" for row in report.rows]
    places = list(range(len(report.rows)))
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
