"""The page of `clipcond demo`: one HTML file with everything inside, from a finished `Story`."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from clipcond.mini.world import BACKGROUNDS, COLOURS, Object
from clipcond.workflows.demo import Shot, Side, Story, mean_right

if TYPE_CHECKING:
    from PIL import Image

    from clipcond.prompt.plan import EncoderPlan


def page(story: Story) -> str:
    """Return the HTML document. It loads nothing from anywhere and runs no script; all text in it is escaped."""
    template = Template(files("clipcond.pages").joinpath("templates/demo.html").read_text(encoding="utf-8"))
    lost, objects = story.plan.dropped, len(story.scene.objects)
    chunks = len(story.plan.chunks)
    return template.substitute(
        tokens=story.plan.content_tokens,
        limit=story.plan.limit,
        chunks="1 chunk" if chunks == 1 else f"{chunks} chunks",
        lost_tokens=lost.content_tokens if lost else 0,
        lost_objects=objects - story.read,
        objects=objects,
        count=len(story.stock),
        ranked=len(story.stock) + len(story.clipcond),
        trio=_trio(story),
        strip=_strip(story.prompt, story.plan),
        rows=_row(story, "stock") + _row(story, "clipcond"),
        table="\n".join(_object_row(story, index) for index in range(objects)),
        best=_best(story),
        ranking="\n".join(_ranked(story, place, shot) for place, shot in enumerate(story.ranking, start=1)),
        commands=_commands(story),
        footer=escape(
            f"Made by clipcond {story.version} in {story.seconds:.0f} seconds on this machine, offline, with the "
            f"embedded model mini (seeds {story.stock[0].seed} to {story.stock[-1].seed})."
        ),
    )


def _trio(story: Story) -> str:
    objects = len(story.scene.objects)

    def figure(image: Image.Image, title: str, text: str, right: int | None, style: str = "") -> str:
        score = "" if right is None else f'<span class="score {style}">{right} of {objects} right</span>'
        caption = f"<strong>{title}</strong>{score}<span>{text}</span>"
        return f"    <figure>{_img(image, title)}<figcaption>{caption}</figcaption></figure>"

    stock, ours = story.stock[0], story.clipcond[0]
    return "\n".join(
        (
            figure(story.sketch, "Asked for", f"{objects} objects, drawn by a program", None),
            figure(stock.image, "Stock pipeline", "the end of the prompt is lost", sum(stock.right), "bad"),
            figure(ours.image, "clipcond", "the whole prompt, same noise", sum(ours.right), "good"),
        )
    )


def _strip(prompt: str, plan: EncoderPlan) -> str:
    """Return the prompt with its token boundaries; everything between tokens stays as the user typed it."""
    tokens = [token for chunk in plan.chunks for token in chunk.tokens]
    read, lost = tokens[: plan.limit], tokens[plan.limit :]
    at, parts = 0, []
    for group, name in ((read, "read"), (lost, "lost")):
        spans = []
        for token in group:
            spans.append(
                f'{escape(prompt[at : token.start])}<span class="t">{escape(prompt[token.start : token.end])}</span>'
            )
            at = max(at, token.end)
        if name == "lost" and lost:
            parts.append(f'<span class="cut">✂ {plan.limit} tokens: a stock pipeline stops here</span>')
        parts.append(f'<span class="{name}">{"".join(spans)}</span>')
    return "".join(parts) + escape(prompt[at:])


def _row(story: Story, side: Side) -> str:
    shots = story.stock if side == "stock" else story.clipcond
    objects, lost = len(story.scene.objects), len(story.scene.objects) - story.read
    title = "Stock pipeline" if side == "stock" else "clipcond"
    limit, tokens = story.plan.limit, story.plan.content_tokens
    reads = f"reads {limit if side == 'stock' else tokens} of {tokens} tokens"
    mean, after = mean_right(shots), mean_right(shots, story.read)
    said = f"{mean:.1f} of {objects} right on average, {after:.1f} of the {lost} behind the cut"
    style = "bad" if side == "stock" else "good"
    figures = "\n".join(f"    {_figure(story, shot, _count(shot), f'seed {shot.seed}')}" for shot in shots)
    return (
        f'  <div class="row">\n  <div class="row-head"><b>{title}</b><span>{reads}</span>'
        f'<span class="score {style}">{said}</span></div>\n  <div class="pictures">\n{figures}\n  </div>\n  </div>\n'
    )


def _figure(story: Story, shot: Shot, title: str, text: str) -> str:
    caption = f"<b>{escape(title)}</b> <small>{escape(text)}</small>{_dots(shot.right, story.read)}"
    name = f"{shot.side}, seed {shot.seed}: {_count(shot)} objects right"
    return f'<figure class="{shot.side}">{_img(shot.image, name)}<figcaption>{caption}</figcaption></figure>'


def _count(shot: Shot) -> str:
    return f"{sum(shot.right)}/{len(shot.right)}"


def _dots(right: Iterable[bool], read: int) -> str:
    marks = []
    for index, yes in enumerate(right):
        names = " ".join([*(["yes"] if yes else []), *(["first-lost"] if index == read else [])])
        marks.append(f'<i class="{names}"></i>')
    return f'<span class="dots" aria-hidden="true">{"".join(marks)}</span>'


def _object_row(story: Story, index: int) -> str:
    thing, after = story.scene.objects[index], index >= story.read
    where = f"{thing.cell}{', behind the cut' if after else ''}"
    cells = "".join(
        f"<td>{_bar(sum(shot.right[index] for shot in shots), len(shots), side)}</td>"
        for shots, side in ((story.stock, "stock"), (story.clipcond, "clipcond"))
    )
    glyph = _glyph(thing, story.scene.background)
    named = f'<div class="thing">{glyph}<div>{thing.colour} {thing.shape}<small>{where}</small></div></div>'
    return f'    <tr class="{"after" if after else "before"}"><td>{named}</td>{cells}</tr>'


def _bar(right: int, count: int, side: str) -> str:
    share = 100 * right / count
    return f'<div class="bar"><u><b class="of-{side}" style="width:{share:.0f}%"></b></u>{right}/{count}</div>'


def _best(story: Story) -> str:
    best, objects = story.best, len(story.scene.objects)
    mean = mean_right(story.clipcond)
    return (
        f"The best of clipcond's, seed {best.seed}, has {sum(best.right)} of {objects} objects right; "
        f"a picture of clipcond's has {mean:.1f} on average."
    )


def _ranked(story: Story, place: int, shot: Shot) -> str:
    return "    " + _figure(story, shot, f"{place}. {shot.side}", f"{shot.cosine:.2f}, right: {_count(shot)}")


def _commands(story: Story) -> str:
    objects = [f"{thing.colour} {thing.shape} {thing.cell}" for thing in story.scene.objects[:2]]
    prompt = f"{', '.join(objects)}, {story.scene.background} background"
    lines = (
        f'clipcond tokens "{prompt}"',
        f'clipcond generate "{prompt}" -n 8 --out pictures',
        f'clipcond rerank pictures --prompt "{prompt}" --top 3',
        "clipcond models --all",
    )
    return escape("\n".join(lines), quote=False)


def _img(image: Image.Image, name: str) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<img src="data:image/png;base64,{data}" alt="{escape(name)}" width="{image.width}" height="{image.height}">'
    )


def _glyph(thing: Object, background: str) -> str:
    """Draw an object on the scene's background, small."""
    ground = _rgb(BACKGROUNDS.get(background, (128, 128, 128)))
    field = f'<rect width="24" height="24" fill="{ground}"/>'
    return (
        f'<svg viewBox="0 0 24 24" aria-hidden="true">{field}{_shape(thing.shape, _rgb(COLOURS[thing.colour]))}</svg>'
    )


def _rgb(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _shape(shape: str, fill: str) -> str:
    if shape == "circle":
        return f'<circle cx="12" cy="12" r="8" fill="{fill}"/>'
    if shape == "ring":
        return f'<circle cx="12" cy="12" r="6.6" fill="none" stroke="{fill}" stroke-width="2.9"/>'
    if shape == "square":
        return f'<rect x="5" y="5" width="14" height="14" fill="{fill}"/>'
    if shape == "cross":
        return f'<path d="M9.6 4h4.8v5.6H20v4.8h-5.6V20H9.6v-5.6H4V9.6h5.6z" fill="{fill}"/>'
    if shape == "triangle":
        return f'<path d="M12 4l8 14.4H4z" fill="{fill}"/>'
    corners = (_star_corner(index) for index in range(10))
    return f'<polygon points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}" fill="{fill}"/>'


def _star_corner(index: int) -> tuple[float, float]:
    radius, angle = (8.5, 3.6)[index % 2], math.radians(36 * index - 90)
    return 12 + radius * math.cos(angle), 12 + radius * math.sin(angle)
