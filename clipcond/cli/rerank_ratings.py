"""The report of `clipcond rerank --agreement` and `--fit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipcond.cli.render import stdout_console
from clipcond.wording import visible

if TYPE_CHECKING:
    from clipcond.score.statistics import Interval
    from clipcond.workflows.rerank_ratings import RatingReport


def show_report(report: RatingReport) -> None:
    """Print a line for each score: its agreement with people, with intervals; then the head that was fitted."""
    from rich.table import Table
    from rich.text import Text

    console = stdout_console()
    if report.agreements:
        first = next(iter(report.agreements.values()))
        console.print(
            Text(
                f"{report.rated} rated, {first.prompts} prompts that say something, {first.pairs:,} pairs; chance is 0.5"
            )
        )
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("score", "pairs in order", "Spearman", "Kendall", "best found in 1, 2, 4"):
            table.add_column(title, overflow="fold")
        for name, each in report.agreements.items():
            recall = ", ".join(f"{value.value:.2f}" for value in each.recall_at.values())
            numbers = (_shown(each.preference_accuracy), _shown(each.spearman), _shown(each.kendall), recall)
            table.add_row(Text(visible(name)), *map(Text, numbers))
        console.print(table)
    if report.alpha is not None:
        console.print(Text(f"the people agree with one another by Krippendorff's alpha of {report.alpha:.2f}"))
    if report.fit is not None:
        fit = report.fit
        console.print(
            Text(
                f"a head by {fit.method} on {fit.rows} pictures: {_shown(fit.accuracy)} of {fit.pairs:,} held-out pairs in "
                f"order ({fit.folds} folds of {fit.held_out}); --aesthetic {visible(str(report.head))} takes it"
            )
        )


def _shown(each: Interval) -> str:
    return f"{each.value:.2f} ({each.low:.2f} to {each.high:.2f})"
