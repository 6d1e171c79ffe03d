"""The findings as tables of a page, as plots and as a sheet of pictures."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from paper_findings import Finding, Measured
from paper_measures import SHOTS, Card, FewShots, World
from paper_trained import PLAIN, SHIFT, VENDOR, Trained, by_batch, points
from PIL import Image, ImageDraw, ImageFont

from clipcond.files import write_file
from clipcond.pages.plots import drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, BROWN, GREY = "#1f5fa8", "#b3541e", "#777777"
_SPACE = "\u00a0"  # at which no line breaks
_THUMBNAIL, _LABEL, _COLUMN = 64, 22, 72  # pixels of the sheet


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def put(page: Path, parts: dict[str, str]) -> None:
    """Put each part between its marks, `<!-- NAME: begin -->` and `<!-- NAME: end -->`, of a page that has them."""
    text = page.read_text(encoding="utf-8")
    for name, made in parts.items():
        marks = re.compile(rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)", re.DOTALL)
        if not marks.search(text):
            raise SystemExit(
                f"{page} has no marks for {name!r}; expected <!-- {name}: begin --> and <!-- {name}: end -->"
            )
        text = marks.sub(lambda found, made=made: f"{found[1]}{made.rstrip()}\n{found[2]}", text)
    write_file(page, text, overwrite=True)


def percent(of: Measured) -> str:
    """Return a share with its interval, in percent."""
    value, low, high = (100 * each for each in (of.interval.value, of.interval.low, of.interval.high))
    return f"{value:.1f}{_SPACE}[{low:.1f},{_SPACE}{high:.1f}]"


def points_of(of: Measured) -> str:
    """Return a difference with its interval, in points, with signs."""
    value, low, high = (100 * each for each in (of.interval.value, of.interval.low, of.interval.high))
    return f"{value:+.1f}{_SPACE}[{low:+.1f},{_SPACE}{high:+.1f}]"


def table(rows: Sequence[Measured], what: str = "what") -> str:
    """Return shares, with how many answers each is of and what an answer by lot reaches."""
    lines = [f"| {what} | % | of | by lot |", "|---|---|---|---|"]
    lines += [f"| {row.name} | {percent(row)} | {row.count:,} | {_chance(row)} |" for row in rows]
    return "\n".join(lines)


AIMS = {"a vendor never seen": "50 / 75", "emoji never seen, among each other": "25"}


def card_table(cards: Sequence[Card], of_groups: Sequence[Measured]) -> str:
    """Return the model's numbers: the first label and the first five, by four templates and by the label alone."""
    lines = [
        "| | pictures | labels | first | among five | first, label alone | by lot | aim |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for card in cards:
        lines.append(
            f"| {card.name} | {card.first.count:,} | {card.labels:,} | {percent(card.first)} | {percent(card.five)} "
            f"| {percent(card.alone)} | {_chance(card.first)} / {_chance(card.five)} | {AIMS.get(card.name, '')} |"
        )
    lines += [f"| {row.name} | {row.count:,} | | {percent(row)} | | | {_chance(row)} | 80 |" for row in of_groups]
    return "\n".join(lines)


def _chance(row: Measured) -> str:
    return "" if row.chance is None else f"{100 * row.chance:.1f}" if row.chance >= 0.001 else f"{100 * row.chance:.2f}"


def verdicts(findings: Sequence[Finding]) -> str:
    """Return a line for each claim: the number that decides it, and whether it holds."""
    lines = ["| the paper | decided by | points | in the small |", "|---|---|---|---|"]
    for of in findings:
        decided = of.decided_by
        number = points_of(decided) if decided.chance is None else percent(decided)
        name = decided.name if decided.chance is None else f"{decided.name} (by lot {100 * decided.chance:.0f})"
        lines.append(f"| {of.claim} | {name} | {number} | **{of.verdict}** |")
    return "\n".join(lines)


def details(findings: Sequence[Finding]) -> str:
    """Return every row that was measured, claim by claim, with what else is to be said."""
    lines = ["| | % or points | of |", "|---|---|---|"]
    notes = []
    for of in findings:
        lines.append(f"| **{of.claim}** | | |")
        lines += [
            f"| {row.name} | {points_of(row) if _is_difference(row) else percent(row)} | {row.count:,} |"
            for row in of.rows
        ]
        notes += [of.note] if of.note else []
    return "\n".join(lines) + "\n\n" + "\n".join(f"- {note}" for note in notes)


def _is_difference(row: Measured) -> bool:
    return " above " in row.name


# ── plots ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def plot(curve: FewShots, trained: Trained | None) -> bytes:
    """Return a WebP: probes over examples, and where trainings are there also robustness, objectives and batches."""
    if trained is None or "supervised" not in trained.runs:
        return webp(drawn(lambda figure: _probes(figure.subplots(), curve), "png", (5, 3.6)))
    return webp(drawn(lambda figure: _four(figure, curve, trained), "png", (9.2, 7.2)))


def webp(png: bytes) -> bytes:
    """Return the same picture without its alpha, lossless, at a third of the size."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "webp", lossless=True, method=6)
    return buffer.getvalue()


def _four(figure: Figure, curve: FewShots, trained: Trained) -> None:
    (first, second), (third, fourth) = figure.subplots(2, 2)
    _robustness(first, trained)
    _objectives(second, trained)
    _batches(third, trained)
    _probes(fourth, curve)


def _robustness(axes: Axes, trained: Trained) -> None:
    for test, mark in ((VENDOR, "o"), (SHIFT, "^")):
        for kind, colour, name in (("supervised", BROWN, "supervised"), ("contrastive", BLUE, "zero-shot")):
            runs = [result for result in trained.kind(kind) if result["run"]["batch"] == 256]
            plain, shifted = points(runs, test)
            said = f"{name}, {'vendor never seen' if test == VENDOR else 'one colour'}"
            axes.plot(_percents(plain), _percents(shifted), mark, color=colour, label=said, ms=5, alpha=0.8)
    (_, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    along = np.linspace(0.005, right / 100, 60)
    for test in (VENDOR, SHIFT):
        axes.plot(100 * along, 100 * trained.line(test)(along), "-", color=BROWN, lw=0.8)
    axes.plot([0, right], [0, right], ":", color=GREY, lw=0.8)
    axes.set_ylim(-0.02 * top, 1.5 * top)
    axes.set(xlabel="seen vendors (%)", ylabel="under the shift (%)", title="robustness, through the training")
    _finish(axes)


def _percents(shares: Sequence[float]) -> list[float]:
    return [100 * each for each in shares]


def _objectives(axes: Axes, trained: Trained) -> None:
    kinds = (("contrastive", BLUE, "contrastive"), ("words", BROWN, "words of the caption"))
    for name, colour, said in kinds:
        for number, result in enumerate(trained.alike(name)):
            compute = [3 * point["samples"] * result["flops"] / 1e12 for point in result["checkpoints"]]
            shares = _percents([point[VENDOR] for point in result["checkpoints"]])
            axes.plot(compute, shares, "o-", color=colour, ms=4, label=None if number else said)
    axes.set(xlabel="compute (10¹² operations)", ylabel="vendor never seen (%)", title="zero-shot by objective")
    _finish(axes)


def _batches(axes: Axes, trained: Trained) -> None:
    names = by_batch(trained)
    for test, colour, said in (
        (PLAIN, GREY, "seen vendors"),
        (VENDOR, BLUE, "vendor never seen"),
        (SHIFT, BROWN, "one colour"),
    ):
        rows = [trained.row(name, test, "") for name in names.values()]
        values = np.array([[row.interval.value, row.interval.low, row.interval.high] for row in rows]).T * 100
        axes.errorbar(list(names), values[0], (values[0] - values[1], values[2] - values[0]), fmt="o-", color=colour,
                      ms=4, lw=1, label=said)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(names), [f"{size:,}" for size in names])
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])
    axes.set(xlabel="pictures in a batch", ylabel="right (%)", title="batches at equal samples")
    _finish(axes)


def _probes(axes: Axes, curve: FewShots) -> None:
    places = range(len(SHOTS))
    axes.axhline(100 * curve.zero_shot.mean(), color=GREY, linestyle=":", label="zero-shot")
    for answers, colour, said in ((curve.alone, BROWN, "from nothing"), (curve.near, BLUE, "from zero-shot")):
        axes.plot(places, [100 * answers[shots].mean() for shots in SHOTS], "o-", color=colour, ms=4, label=said)
    axes.set_xticks(places, [str(shots) for shots in SHOTS])
    axes.set(xlabel="examples a class", ylabel="right (%)", title="probes of subgroups, vendor never seen")
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.title.set_fontsize(11)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def sheet(world: World, found: dict[str, np.ndarray]) -> bytes:
    """Return a WebP: under each query, what it finds, best first."""
    columns = max(map(len, found.values()))
    step = _THUMBNAIL + _LABEL + 12
    page = Image.new("RGB", (columns * _COLUMN + 8, len(found) * step + 4), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for line, (query, rows) in enumerate(found.items()):
        pen.text((6, line * step + 4), query, fill="#222222", font=font)
        for place, row in enumerate(rows):
            page.paste(Image.fromarray(world.data.pictures[row]), (6 + place * _COLUMN, line * step + _LABEL + 4))
    buffer = io.BytesIO()
    page.save(buffer, "webp", quality=85, method=6)
    return buffer.getvalue()
