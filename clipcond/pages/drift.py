"""The page of a drift report: a verdict, what differs, a curve over the positions of a row, and the prompts; one HTML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from clipcond._version import __version__
from clipcond.prompt.analysis.plan_summary import counted
from clipcond.wording import visible
from clipcond.workflows.drift import DENOISER, KIND_NAMES, DriftReport

if TYPE_CHECKING:
    from clipcond.score.drift_detail import DriftDetail, PlaceDrift, PromptDrift
    from clipcond.workflows.drift import EncoderDrift

MOST_PROMPTS = 500  # beyond these, only their number is shown
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 480, 210, 40, 24, 8, 8  # of a curve, in its own units


def drift_page(report: DriftReport) -> str:
    """Return the HTML document. It loads nothing from anywhere and runs no script."""
    template = Template(files("clipcond.pages").joinpath("templates/drift.html").read_text(encoding="utf-8"))
    body = [_verdict(report), *(_encoder(name, each) for name, each in report.encoders.items())]
    if report.denoiser:
        body.insert(1, _denoiser(report))
    return template.substitute(
        title=_safe(f"{report.target} · clipcond drift"),
        heading=_safe(_heading(report)),
        lead=_safe(
            f"{report.before} → {report.after}, as {report.target} reads them, on {counted(report.prompts, 'prompt')}"
        ),
        body="\n".join(body),
        version=_safe(__version__),
    )


def _heading(report: DriftReport) -> str:
    if report.failed:
        return f"Fails: {counted(len(report.failed), 'measure')} beyond its limit" if len(report.failed) == 1 else (
            f"Fails: {len(report.failed)} measures beyond their limits"
        )  # fmt: skip
    if report.limits:
        return "Holds: no measure beyond its limit"
    name, each = max(report.encoders.items(), key=lambda pair: _words(pair[1]))
    what = "words" if "words" in each.drift.kinds else "pooled vector"
    return f"The {what} of {name} turned by {_words(each):.2g}"


def _words(each: EncoderDrift) -> float:
    """1 - cosine of the words, of the pooled vector where the target reads that alone."""
    measures = each.drift.measures()
    return measures.get("words", measures.get("pooled", 0.0))


# parts


def _verdict(report: DriftReport) -> str:
    measures = {name: each.drift.measures() for name, each in report.encoders.items()}
    rows = []
    for name in dict.fromkeys(key for own in measures.values() for key in own):
        values = [own.get(name) for own in measures.values()]
        rows.append(_measure(name, values, report))
    if report.denoiser:
        most = max(each.change for each in report.denoiser)
        rows.append(_measure(DENOISER, [most, *[None] * (len(measures) - 1)], report))
    without = "" if report.limits else (
        " No limits were given: <code>--fail-over words=0.01</code> makes one, and the command exits with 1 beyond it."
    )  # fmt: skip
    return (
        "<section><h2>Measures</h2><p>Each is 0 for equal encoders: 1 − cosine of a kind of positions, the distance of "
        f"the ratio of their norms from 1, of the spread of the prompts, the cosines between them.{without}</p>"
        + _table(["measure", *map(_n, measures), _n("limit"), "verdict"], rows)
        + "</section>"
    )


def _measure(name: str, values: Sequence[float | None], report: DriftReport) -> str:
    limit, failed = report.limits.get(name), name in report.failed
    verdict = "" if limit is None else '<b class="bad">fails</b>' if failed else '<b class="good">holds</b>'
    cells = "".join(f'<td class="n">{_number(value)}</td>' for value in values)
    shown = "" if limit is None else f"{limit:g}"
    return (
        f'<tr{" class=failed" if failed else ""}><th scope="row">{_safe(name)}</th>{cells}'
        f'<td class="n">{shown}</td><td>{verdict}</td></tr>'
    )


def _denoiser(report: DriftReport) -> str:
    pooled = any(each.pooled is not None for each in report.denoiser)
    heads = ["timestep", "new encoder", "no words at all", *(["no words in the pooled vector"] if pooled else [])]
    rows = []
    for each in report.denoiser:
        values = [each.change, each.text, *([each.pooled] if pooled else [])]
        cells = "".join(f'<td class="n">{"–" if value is None else f"{value:.2%}"}</td>' for value in values)
        rows.append(f'<tr><td class="n">{each.timestep:g}</td>{cells}</tr>')
    said = (
        "Change of the denoiser's prediction on the same noise, without guidance; beside it what the words do at all."
    )
    return f"<section><h2>Denoiser</h2><p>{said}</p>{_table([*map(_n, heads)], rows)}</section>"


def _encoder(name: str, each: EncoderDrift) -> str:
    parts = [f"<h2>{_safe(name)}</h2><p>{_safe(f'Layer read: {each.layer}.')}</p>", _differences(each), _kinds(each)]
    detail = each.detail
    if detail.text:
        parts.append("<h3>Position by position</h3>" + _curves(detail))
    parts.append(_prompts(each))
    return "<section>" + "\n".join(parts) + "</section>"


def _differences(each: EncoderDrift) -> str:
    if not each.differences:
        return '<p class="same">No difference in weights, rows or outputs.</p>'
    items = "".join(f"<li><b>{_safe(d.name)}</b> {_safe(d.evidence)}</li>" for d in each.differences)
    return f'<h3>What differs</h3><ul class="differences">{items}</ul>'


def _kinds(each: EncoderDrift) -> str:
    rows = []
    for kind, found in each.drift.kinds.items():
        told = (str(found.positions), f"{found.cosine:.4f}", f"{found.least_cosine:.4f}", f"{found.norm_ratio:.3f}")
        cells = "".join(f'<td class="n">{text}</td>' for text in told)
        rows.append(f'<tr><th scope="row">{_safe(KIND_NAMES[kind])}</th>{cells}</tr>')
    heads = ["positions", *map(_n, ("number", "cosine", "least", "norm ratio"))]
    spread = (
        f"Spread of the prompts ×{each.drift.spread_ratio:.3f}; cosines between them moved by {each.drift.gram:.4f}."
    )
    return f"<h3>Kinds of positions</h3>{_table(heads, rows)}<p>{spread}</p>"


def _table(heads: Sequence[str], rows: Sequence[str], *, prompts: int = 0) -> str:
    """heads: texts, or cells from `_n`.   rows: their HTML.   prompts: of a table of prompts, the columns beside them."""
    cells = "".join(each if each.startswith("<th") else f'<th scope="col">{_safe(each)}</th>' for each in heads)
    kind = f' class="prompts" style="--n:{prompts}"' if prompts else ""
    body = "\n".join(rows)
    return f'<div class="wide"><table{kind}><thead><tr>{cells}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _n(head: str) -> str:
    """The head of a column of numbers."""
    return f'<th scope="col" class="n">{_safe(head)}</th>'


# curves


Heights = Callable[["PlaceDrift"], tuple[float, float]]  # of a place: of the line, and of the end of the area above it


def _curves(detail: DriftDetail) -> str:
    """Draw the drift over the positions, of directions and of lengths."""
    turned = _curve(detail, lambda place: (1 - place.cosine, 1 - place.least_cosine), "1 − cosine by position")
    longer = _curve(detail, lambda place: (abs(place.norm_ratio - 1),) * 2, "distance of the ratio of norms from 1")
    return (
        f'<figure>{turned}<figcaption><span class="key text"></span> BOS, words and EOS '
        '<span class="key padding"></span> padding · 1 − cosine by position, line: mean of the prompts, area: up to the '
        f"one that turned most</figcaption></figure><figure>{longer}<figcaption>Distance of the ratio of norms from 1 by "
        "position, mean of the prompts</figcaption></figure>"
    )


def _curve(detail: DriftDetail, heights: Heights, what: str) -> str:
    places = (*detail.text, *detail.padding)
    highest, last = max(heights(place)[1] for place in places), max(place.at for place in places)
    top = _round_up(highest)
    lines = "".join(
        _series(own, kind, heights, top, last)
        for kind, own in (("text", detail.text), ("padding", detail.padding))
        if own
    )
    marks = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_y(top * n / 4, top)}" y2="{_y(top * n / 4, top)}"/>'
        f'<text x="{_LEFT - 6}" y="{_y(top * n / 4, top) + 4}" text-anchor="end">{top * n / 4:.2g}</text>'
        for n in range(5)
    )
    marks += "".join(
        f'<text x="{_x(at, last)}" y="{_HEIGHT - 6}" text-anchor="middle">{at}</text>' for at in range(0, last + 1, 15)
    )
    said = f"{what}: at most {highest:.3g}"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{said}">{marks}{lines}</svg>'


def _series(places: Sequence[PlaceDrift], kind: str, heights: Heights, top: float, last: int) -> str:
    mean = [(_x(place.at, last), _y(heights(place)[0], top)) for place in places]
    most = [(_x(place.at, last), _y(heights(place)[1], top)) for place in places]
    area = " ".join(f"{x},{y}" for x, y in [*most, *reversed(mean)])
    line = " ".join(f"{x},{y}" for x, y in mean)
    points = "".join(
        f'<circle cx="{x}" cy="{y}" r="4"><title>position {place.at}, {counted(place.rows, "prompt")}: 1 − cosine '
        f"{1 - place.cosine:.3g}, at most {1 - place.least_cosine:.3g}; norm ratio {place.norm_ratio:.3f}</title></circle>"
        for (x, y), place in zip(mean, places, strict=True)
    )
    return f'<g class="{kind}"><polygon points="{area}"/><polyline points="{line}"/>{points}</g>'


def _x(at: int, last: int) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * at / max(last, 1), 1)


def _y(value: float, top: float) -> float:
    return round(_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - value / top), 1)


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten, as the end of a scale; a millionth at the least."""
    scale = 1e-6
    while True:
        for step in (1, 2, 4, 8):
            if value <= step * scale:
                return step * scale
        scale *= 10


# prompts


def _prompts(each: EncoderDrift) -> str:
    """The table of prompts, those that turned most first."""
    pairs = sorted(zip(each.texts, each.detail.prompts, strict=True), key=lambda pair: _turned(pair[1]), reverse=True)
    columns = [
        name for name in ("words", "eos", "padding", "pooled") if any(getattr(p, name) is not None for _, p in pairs)
    ]
    worst = any(prompt.worst is not None for _, prompt in pairs)
    heads = ["prompt", *(_n(KIND_NAMES[name]) for name in columns), *(["turned most"] if worst else [])]
    rows = [_prompt_row(text, tokens, prompt, columns, worst) for (text, tokens), prompt in pairs[:MOST_PROMPTS]]
    more = len(pairs) - MOST_PROMPTS
    return (
        "<h3>Prompt by prompt</h3><p>1 − cosine, those that turned most first.</p>"
        + _table(heads, rows, prompts=len(columns) + worst)
        + (f"<p>and {more} more</p>" if more > 0 else "")
    )


def _turned(prompt: PromptDrift) -> float:
    found = [each for each in (prompt.words, prompt.eos, prompt.pooled) if each is not None]
    return 1 - (sum(found) / len(found) if found else 1.0)


def _prompt_row(text: str, tokens: Sequence[str], prompt: PromptDrift, columns: Sequence[str], worst: bool) -> str:
    values = [getattr(prompt, name) for name in columns]
    cells = "".join(f'<td class="n">{"–" if value is None else _number(1 - value)}</td>' for value in values)
    if worst and prompt.worst is not None and prompt.worst_cosine is not None:
        word = tokens[prompt.worst - 1] if prompt.worst <= len(tokens) else "EOS"
        cells += f"<td>{_safe(word)} <span>{_number(1 - prompt.worst_cosine)}</span></td>"
    return f'<tr><th scope="row">{_safe(text) or "(empty)"}</th>{cells}</tr>'


def _number(value: float | None) -> str:
    return "–" if value is None else f"{abs(value):.4f}"


def _safe(text: str) -> str:
    """Escape text for HTML, with a visible sign for every control character."""
    return escape(visible(text))
