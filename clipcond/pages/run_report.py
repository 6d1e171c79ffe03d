"""The report of a training run: one HTML file with its curves, recall before and after, its drift and its pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from clipcond.pages.curve import Curve, chart
from clipcond.wording import visible
from clipcond.workflows.run_record import RunRecord

_SIDES = {"image_to_text": "image to text", "text_to_image": "text to image"}
_KINDS = ("words", "bos", "eos", "padding", "empty", "pooled")
_DRIFT = {
    "words": "words", "bos": "start token", "eos": "end token", "padding": "padding", "empty": "empty prompt",
    "pooled": "pooled vector", "spread": "loss of spread", "gram": "cosines between prompts",
}  # fmt: skip
_STAGES = {"data": "waiting for data", "forward_backward": "towers, forth and back", "step": "update of the weights"}


def run_report(run: RunRecord) -> str:
    """Return the HTML document, which loads nothing from anywhere."""
    template = Template(files("clipcond.pages").joinpath("templates/run_report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=_text(run.folder.resolve().name), told=_told(run), tiles=_tiles(run), charts="".join(_charts(run)),
        recall=_recall(run), drift=_drift(run), pairs=_pairs(run),
        speed=_speed(run), notes=_list(run.notes), settings=_settings(run.config),
    )  # fmt: skip


def _told(run: RunRecord) -> str:
    """The first sentence: what was trained on what, and how far."""
    start, config = run.start, run.config
    state = "done" if run.end else "not done yet"
    return _text(
        f"{config.get('model')} on {config.get('data')}: {start.get('images', 0):,} images, "
        f"{start.get('captions', 0):,} captions, step {run.last_step:,} of {start.get('steps', 0):,}, {state}"
    )


# ── numbers at a glance ──────────────────────────────────────────────────────────────────────────────────────────────


def _tiles(run: RunRecord) -> str:
    tiles = []
    if run.after is not None:
        for side, name in _SIDES.items():
            chance = run.after.get("chance", {}).get(side, {}).get("R@1")
            behind = "" if run.before is None else f"before {_percent(run.before[side]['R@1'])}"
            beside = "" if chance is None else f"chance {_percent(chance)}"
            said = ", ".join(filter(None, (behind, beside)))
            tiles.append(_tile(f"R@1, {name}", _percent(run.after[side]["R@1"]), said))
    if run.drift is not None:
        name = _main_drift(run.drift)
        told = f"1 - cosine; the run would end at {run.config.get('max_drift')}"
        tiles.append(_tile(f"drift of {_DRIFT[name]}", _short(run.drift["measures"][name]), told))
    if run.steps:
        terms = f"at the first line {_short(run.steps[0]['loss'])}" if len(run.steps) > 1 else ""
        tiles.append(_tile("loss", _short(run.steps[-1]["loss"]), terms))
    if run.scores:
        last = run.scores[-1]
        tiles.append(_tile("best score", f"{last['best']:.3f}", f"at step {last['best_step']:,}, the dotted line"))
    return "".join(tiles)


def _tile(name: str, value: str, beside: str) -> str:
    return f'<div class="tile"><span>{_text(name)}</span><b>{_text(value)}</b><span>{_text(beside)}</span></div>'


# ── curves ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _charts(run: RunRecord) -> list[str]:
    steps = run.steps
    best = run.scores[-1]["best_step"] if run.scores else None
    found = [_figure("loss", [_curve("loss", steps, lambda line: line["loss"])], _short, mark=best)]
    terms = list(dict.fromkeys(name for line in steps for name in line.get("terms", {})))
    for name in terms if len(terms) > 1 else ():
        points = [(float(line["step"]), float(line["terms"].get(name, 0.0))) for line in steps]
        found.append(_figure(f"{name} loss", [Curve(name=name, points=points)], _short))
    if run.evaluations:
        found.append(_recall_figure(run, best))
    if run.drifts:
        name = _main_drift(run.drifts[-1])
        curve = _curve("drift", run.drifts, lambda line: line["measures"].get(name, 0.0))
        found.append(_figure(f"drift of {_DRIFT[name]} (1 - cosine)", [curve], _short, mark=best))
    if run.scores:
        found.append(_figure("score", [_curve("score", run.scores, lambda line: line["score"])], _short, mark=best))
    found.append(_figure("learning rate", [_curve("learning rate", steps, lambda line: line["learning_rate"])], _short))
    found.append(_figure("temperature", [_curve("temperature", steps, lambda line: 1 / line["logit_scale"])], _short))
    found.append(_figure("norm of the gradient", [_curve("norm", steps, lambda line: line["grad_norm"])], _short))
    return found


def _curve(name: str, lines: Sequence[Mapping[str, Any]], value: Callable[[Any], float]) -> Curve:
    return Curve(name=name, points=[(line["step"], float(value(line))) for line in lines])


def _recall_figure(run: RunRecord, best: int | None) -> str:
    curves = [
        Curve(name=name, points=[(line["step"], line[side].get("R@1", 0.0)) for line in run.evaluations])
        for side, name in _SIDES.items()
    ]
    chance = run.evaluations[-1].get("chance", {}).get("text_to_image", {}).get("R@1")
    level = None if chance is None else ("chance", chance)
    key = "".join(f'<span class="key c{number}">{_text(each.name)}</span>' for number, each in enumerate(curves))
    return _figure("R@1", curves, _percent, level=level, mark=best, key=key)


def _figure(
    title: str, curves: Sequence[Curve], shown: Callable[[float], str], *, level: tuple[str, float] | None = None,
    mark: int | None = None, key: str = "",
) -> str:  # fmt: skip
    if not any(curve.points for curve in curves):
        return ""
    drawn = chart(title, curves, shown=shown, level=level, mark=mark)
    return f'<figure class="card"><figcaption>{_text(title)} {key}</figcaption>{drawn}</figure>'


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _recall(run: RunRecord) -> str:
    after, before = run.after, run.before
    if after is None:
        return ""
    rows = []
    for side, name in _SIDES.items():
        for k, share in after[side].items():
            shares = (before[side].get(k) if before else None, share, after.get("chance", {}).get(side, {}).get(k))
            rows.append([f"{name} {k}", *("–" if each is None else _percent(each) for each in shares)])
    counts = f"among {after['images']:,} images and {after['texts']:,} captions that the run did not train on"
    told = f"{counts}; the model is of step {run.model_step:,}" if run.end else counts
    return _section("Recall", told, _table(["", "before", "after" if run.end else "so far", "chance"], rows))


def _drift(run: RunRecord) -> str:
    if run.drift is None:
        return ""
    rows = [[_DRIFT[name], _short(run.drift["measures"][name])] for name in _DRIFT if name in run.drift["measures"]]
    told = "of general prompts, where the target reads them: 1 - cosine of each kind of position; 0 for no change"
    return _section("Drift", told, _table(["", f"step {run.drift['step']:,}"], rows))


def _speed(run: RunRecord) -> str:
    by_stage = run.steps[-1].get("by_stage", {}) if run.steps else {}
    rows = [[_STAGES[name], f"{value:,.0f}"] for name, value in by_stage.items() if name in _STAGES]
    if not rows:
        return ""
    rows.append(["all together", f"{run.steps[-1]['pairs_per_second']:,.0f}"])
    told = "pairs a second that each stage alone would give, by the last line of the log"
    return _section("Speed", told, _table(["", "pairs/s"], rows))


def _settings(config: Mapping[str, Any]) -> str:
    given = [[name, str(value)] for name, value in config.items() if value not in (None, [], "", False)]
    return _table(["setting", ""], given, plain=True)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, plain: bool = False) -> str:
    head = "".join(f"<th>{_text(title)}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table{' class=words' if plain else ''}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _section(title: str, told: str, body: str) -> str:
    return f'<section class="card"><h2>{_text(title)}</h2><p>{_text(told)}</p>{body}</section>'


# ── pairs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _pairs(run: RunRecord) -> str:
    kinds = {"worst": "Captions that fare worst", "best": "Captions that fare best"}
    parts = [
        f"<h2>{title}</h2><div class=pairs>{''.join(map(_pair, run.pairs[kind]))}</div>"
        for kind, title in kinds.items() if run.pairs.get(kind)
    ]  # fmt: skip
    if not parts:
        return ""
    told = (
        f"Each caption looked for its picture among {run.pairs.get('images', 0):,}. Left its own picture, right the nearest of "
        "the others; below each its cosine."
    )
    return f"<section><p>{told}</p>{''.join(parts)}</section>"


def _pair(pair: Mapping[str, Any]) -> str:
    before = "" if pair.get("rank_before") is None else f", before the training {pair['rank_before']:,}"
    return (
        f'<article class="card"><p class="caption">{_text(pair["caption"])}</p><div class="two">'
        f"{_picture(pair['picture'], pair['cosine'], 'own')}{_picture(pair['other'], pair['other_cosine'], 'nearest other')}"
        f"</div><p>rank {pair['rank']:,}{before}</p></article>"
    )


def _picture(picture: Mapping[str, str], cosine: float, what: str) -> str:
    name, uri = _text(picture["name"]), picture["uri"]
    shown = f'<img src="{escape(uri, quote=True)}" alt="{what}: {name}" title="{name}">' if uri else f"<i>{name}</i>"
    return f"<figure>{shown}<figcaption>{what} {cosine:.3f}</figcaption></figure>"


def _list(notes: Sequence[str]) -> str:
    return "".join(f"<li>{_text(note)}</li>" for note in notes) or "<li>none</li>"


def _main_drift(line: Mapping[str, Any]) -> str:
    return next(name for name in ("words", "pooled", *_KINDS) if name in line["measures"])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _short(number: float) -> str:
    return f"{number:.3g}"


def _text(text: str) -> str:
    return escape(visible(text))
