"""A small chart of lines over steps, as SVG in the colours of the page around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 340, 190, 52, 10, 10, 26
_DOTS = 40  # points of a line that are also drawn as dots
_MOST = 400  # points of a line that are drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A line: its name, and its points (step, value) in the order of the steps."""

    name: str
    points: Sequence[tuple[float, float]]


def chart(
    title: str, curves: Sequence[Curve], *, shown: Callable[[float], str], level: tuple[str, float] | None = None,
    mark: float | None = None,
) -> str:  # fmt: skip
    """Return the SVG of one or two lines; values that are not finite are left out.

    shown: a value in words.   level: a name and a value that is drawn as a dashed line.   mark: a step to point out.
    """
    curves = [Curve(name=each.name, points=_thinned(each.points)) for each in curves]
    values = [value for each in curves for _, value in each.points] + ([level[1]] if level else [])
    steps = [step for each in curves for step, _ in each.points]
    low, high, ticks = _axis(min(values, default=0.0), max(values, default=1.0))
    first, last = min(steps, default=0), max(steps, default=1)

    def at(step: float, value: float) -> tuple[float, float]:
        x = _LEFT + (step - first) / max(last - first, 1e-9) * (_WIDTH - _LEFT - _RIGHT)
        return x, _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)

    parts = [_grid(at(first, tick)[1], shown(tick)) for tick in ticks]
    parts += [_step(at(step, low)[0], step, anchor) for step, anchor in ((first, "start"), (last, "end"))]
    if level is not None:
        parts.append(_level(at(first, level[1])[1], level[0]))
    if mark is not None and first <= mark <= last:
        x = at(mark, low)[0]
        parts.append(f'<line class="mark" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_HEIGHT - _BOTTOM}"/>')
    for number, each in enumerate(curves):
        parts.append(_line(each, number, at, shown))
    said = "; ".join(f"{each.name} from {shown(each.points[0][1])} to {shown(each.points[-1][1])}"
                     for each in curves if each.points)  # fmt: skip
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(f"{title}: {said}")}">'
        f"{''.join(parts)}</svg>"
    )


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the finite points, evenly fewer where they are too many to see; the last one stays."""
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    every = math.ceil(len(finite) / _MOST) or 1
    return [point for number, point in enumerate(finite) if number % every == 0 or number == len(finite) - 1]


def _axis(low: float, high: float) -> tuple[float, float, list[float]]:
    """Return both ends and the ticks of an axis: steps of 1, 2 or 5 times a power of ten, three to six of them."""
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - max(abs(low), 1e-6) * 0.1, high + max(abs(high), 1e-6) * 0.1
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    start, stop = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    ticks = [number * size for number in range(start, stop + 1)]
    return ticks[0], ticks[-1], ticks


def _grid(y: float, text: str) -> str:
    return (
        f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>'
        f'<text text-anchor="end" x="{_LEFT - 6}" y="{y + 4:.1f}">{escape(text)}</text>'
    )


def _step(x: float, step: float, anchor: str) -> str:
    return f'<text text-anchor="{anchor}" x="{x:.1f}" y="{_HEIGHT - 8}">step {step:,.0f}</text>'


def _level(y: float, name: str) -> str:
    return (
        f'<line class="level" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>'
        f'<text class="level" text-anchor="end" x="{_WIDTH - _RIGHT}" y="{y - 4:.1f}">{escape(name)}</text>'
    )


def _line(
    curve: Curve, number: int, at: Callable[[float, float], tuple[float, float]], shown: Callable[[float], str]
) -> str:
    places = [at(step, value) for step, value in curve.points]
    path = " L ".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = ""
    if len(places) <= _DOTS:
        dots = "".join(
            f'<circle class="c{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escape(curve.name)}, step {step:,.0f}: '
            f"{escape(shown(value))}</title></circle>"
            for (x, y), (step, value) in zip(places, curve.points, strict=True)
        )
    return (f'<path class="c{number}" d="M {path}"/>' if places else "") + dots
