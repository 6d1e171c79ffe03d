"""The picture of the dial's sweep: domain recall over drift, an SVG that stands alone, light and dark."""

from __future__ import annotations

from collections.abc import Sequence

from clipcond.train.wise_ft import AlphaPoint, pareto

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 400, 64, 56, 40, 28
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1d2430 } .title { font-weight: 600 } .small { font-size: 11px; fill: #5b6678 }
  rect { fill: #ffffff } line { stroke: #c9d2e0 } path { fill: none; stroke: #4a6fa5; stroke-width: 1.5 }
  circle { fill: #9db2d1 } .front { fill: #2d5fa8 } .chosen { fill: none; stroke: #c2410c; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e7ecf4 } .small { fill: #9aa7bb } rect { fill: #141a24 } line { stroke: #344154 } path { stroke: #6f93c9 }
    circle { fill: #4b5f80 } .front { fill: #8fb4ee } .chosen { fill: none; stroke: #fb923c }
  }
"""


def pareto_picture(points: Sequence[AlphaPoint], chosen: AlphaPoint) -> str:
    """Return the SVG: a dot for each α, the points that no other beats darker and joined, the chosen one ringed."""
    most_drift = max(max(point.drift for point in points), 1e-6)
    recalls = [point.recall for point in points]
    low, high = min(recalls), max(recalls)
    span = max(high - low, 0.01)
    bottom, top = max(0.0, low - 0.1 * span), min(1.0, high + 0.1 * span)

    def at(point: AlphaPoint) -> tuple[float, float]:
        x = _LEFT + point.drift / most_drift * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - (point.recall - bottom) / (top - bottom) * (_HEIGHT - _BOTTOM - _TOP)
        return x, y

    front = sorted(pareto(points), key=lambda point: point.drift)
    parts = [*_axes(most_drift, bottom, top)]
    parts.append('<path d="M ' + " L ".join(f"{x:.1f} {y:.1f}" for x, y in map(at, front)) + '"/>')
    for point in points:
        x, y = at(point)
        kind = ' class="front"' if point in front else ""
        parts.append(f'<circle{kind} cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{_said(point)}</title></circle>')
        parts.append(f'<text class="small" x="{x + 7:.1f}" y="{y + 14:.1f}">{point.alpha:g}</text>')
    x, y = at(chosen)
    parts.append(f'<circle class="chosen" cx="{x:.1f}" cy="{y:.1f}" r="8"/>')
    parts.append(f'<text class="title" x="{_LEFT}" y="22">chosen: {_said(chosen)}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" aria-label="domain recall over drift by alpha">\n<style>{_STYLE}</style>\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}"/>\n{body}\n</svg>\n'
    )


def _axes(most_drift: float, bottom: float, top: float) -> list[str]:
    parts = []
    for step in range(5):
        share = step / 4
        x = _LEFT + share * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        recall = 100 * (bottom + share * (top - bottom))
        parts.append(f'<text class="small" text-anchor="end" x="{_LEFT - 8}" y="{y + 4:.1f}">{recall:.1f} %</text>')
        parts.append(
            f'<text class="small" text-anchor="middle" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}">{share * most_drift:.2g}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text text-anchor="middle" x="{middle:.0f}" y="{_HEIGHT - 12}">drift on general prompts (1 - cosine)</text>'
    )
    parts.append(f'<text x="{_LEFT}" y="{_TOP - 4}" class="small">R@1 on the held-out pairs, mean of both ways</text>')
    return parts


def _said(point: AlphaPoint) -> str:
    return f"alpha {point.alpha:g}, R@1 {100 * point.recall:.1f} %, drift {point.drift:.2g}"
