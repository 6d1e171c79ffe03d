"""The scene world: small pictures with an exact description, and a judge that reads them from pixels alone.

A scene is a background and one to nine objects on a 3×3 grid. Everything the embedded model is trained on and measured
with is made here: scenes, their pictures, their captions, the way back from a caption to a scene, and `check`, which says
object by object whether a picture shows what the scene asked for. No network is involved anywhere in this module.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
GRID = 3

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "gray": (128, 128, 128),
    "pink": (255, 170, 190),
    "teal": (0, 110, 110),
    "brown": (110, 70, 40),
}
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 25, 30),
    "green": (40, 190, 50),
    "blue": (35, 60, 225),
    "yellow": (250, 225, 30),
    "purple": (130, 20, 190),
    "orange": (255, 130, 0),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}
LAYOUTS = ("circle", "square", "triangle", "star", "cross", "ring")
CELLS = (
    "top left", "top center", "top right",
    "middle left", "center", "middle right",
    "bottom left", "bottom center", "bottom right",
)  # fmt: skip

Words = Literal["terse", "plain", "wordy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """One thing in a scene; every field is one of the module's names."""

    colour: str
    shape: str
    cell: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape} at {self.cell}"


@dataclass(frozen=True, slots=True)
class Scene:
    """A background and its objects, at most one in a cell, in the order a caption tells them.

    `background` is empty only in what `parse` returns for a caption that does not name one.
    """

    background: str
    objects: tuple[Object, ...]


def sample(rng: random.Random, *, least: int = 1, most: int = 9) -> Scene:
    """A random scene of `least` to `most` objects, uniform in their number and in every attribute."""
    cells = rng.sample(CELLS, rng.randint(least, most))
    objects = tuple(Object(colour=rng.choice(list(COLOURS)), shape=rng.choice(LAYOUTS), cell=cell) for cell in cells)
    return Scene(rng.choice(list(BACKGROUNDS)), objects)


def one_changed(scene: Scene, rng: random.Random) -> Scene:
    """The scene with one object's colour, shape or place changed; the order of its objects stays."""
    at, attribute = rng.randrange(len(scene.objects)), rng.choice(["colour", "shape", "cell"])
    free = [cell for cell in CELLS if cell not in {thing.cell for thing in scene.objects}]
    if attribute == "cell" and not free:
        attribute = "colour"
    pool = {"colour": list(COLOURS), "shape": list(LAYOUTS), "cell": free}[attribute]
    thing = scene.objects[at]
    new = replace(thing, **{attribute: rng.choice([value for value in pool if value != getattr(thing, attribute)])})
    return Scene(scene.background, (*scene.objects[:at], new, *scene.objects[at + 1 :]))


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_OVERSAMPLE = 4
_CELL = SIZE / GRID


def render(scene: Scene, rng: random.Random) -> Image.Image:
    """The scene as a 64×64 RGB picture; `rng` moves and scales each object a little inside its cell."""
    canvas = Image.new("RGB", (SIZE * _OVERSAMPLE,) * 2, BACKGROUNDS[scene.background])
    draw = ImageDraw.Draw(canvas)
    for thing in scene.objects:
        row, column = divmod(CELLS.index(thing.cell), GRID)
        x = (column + 0.5) * _CELL + rng.uniform(-1.5, 1.5)
        y = (row + 0.5) * _CELL + rng.uniform(-1.5, 1.5)
        radius = rng.uniform(7.0, 8.5)
        _draw(draw, thing.shape, x * _OVERSAMPLE, y * _OVERSAMPLE, radius * _OVERSAMPLE, COLOURS[thing.colour])
    return canvas.reduce(_OVERSAMPLE)


def _draw(
    draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, fill: int | tuple[int, int, int]
) -> None:
    if shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif shape == "square":
        side = 0.86 * r
        draw.rectangle((x - side, y - side, x + side, y + side), fill=fill)
    elif shape == "triangle":
        draw.polygon([(x, y - r), (x + r, y + 0.8 * r), (x - r, y + 0.8 * r)], fill=fill)
    elif shape == "star":
        draw.polygon([_polar(x, y, r if k % 2 == 0 else 0.42 * r, k * 36 - 90) for k in range(10)], fill=fill)
    elif shape == "cross":
        arm = 0.3 * r
        draw.rectangle((x - r, y - arm, x + r, y + arm), fill=fill)
        draw.rectangle((x - arm, y - r, x + arm, y + r), fill=fill)
    else:
        draw.ellipse((x - r, y - r, x + r, y + r), outline=fill, width=round(0.36 * r))


def _polar(x: float, y: float, r: float, degrees: float) -> tuple[float, float]:
    angle = math.radians(degrees)
    return x + r * math.cos(angle), y + r * math.sin(angle)


# ── the judge ────────────────────────────────────────────────────────────────────────────────────────────────────────

_PALETTE = np.array([*COLOURS.values(), *BACKGROUNDS.values()], dtype=np.float32)
_NAMES = (*COLOURS, *BACKGROUNDS)
_MIN_AREA, _MAX_AREA = 30.0, 330.0  # pixels; rendered objects cover 68 to 230
_MIN_OVERLAP = 0.72  # intersection over union of the soft masks


def check(image: Image.Image, scene: Scene) -> list[bool]:
    """Does the picture show each object of the scene? One answer per object, in the scene's order.

    Decided from pixels alone. In the object's cell every pixel is explained as a mix of the picture's own background and
    one palette colour; the colour that covers most pixels must be the asked one, and among all shapes at all places and
    sizes the one that overlaps those pixels best must be the asked one, with a soft intersection over union of 0.72 or more.

    image: any size and mode; it is read as RGB and brought to 64×64.
    """
    pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float32)
    ground = _ground(pixels)
    seen: dict[str, tuple[str, str] | None] = {}
    return [seen.setdefault(o.cell, _look(pixels, ground, o.cell)) == (o.colour, o.shape) for o in scene.objects]


def look(image: Image.Image) -> Scene:
    """Return what the judge sees in a picture: the nearest background and every object it recognises, cell by cell."""
    pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float32)
    ground = _ground(pixels)
    distance = {name: float(np.abs(ground - np.array(rgb)).sum()) for name, rgb in BACKGROUNDS.items()}
    found = {cell: _look(pixels, ground, cell) for cell in CELLS}
    objects = tuple(Object(colour=v[0], shape=v[1], cell=cell) for cell, v in found.items() if v)
    return Scene(min(distance, key=lambda name: distance[name]), objects)


def _ground(pixels: np.ndarray) -> np.ndarray:
    """The background: the median of the outermost frame and of the lines between cells, where objects rarely reach."""
    lines = [0, SIZE - 1, round(_CELL), round(2 * _CELL)]
    strips = np.concatenate([pixels[lines].reshape(-1, 3), pixels[:, lines].reshape(-1, 3)])
    return np.asarray(np.median(strips, axis=0))


def _look(pixels: np.ndarray, ground: np.ndarray, cell: str) -> tuple[str, str] | None:
    window = _window(pixels, cell)
    away = np.linalg.norm(window - ground, axis=-1)
    # A pixel at the rim of an object mixes it with the ground, so colour is read where the object is certain.
    inside = away > 0.6 * np.quantile(away, 0.97)
    if inside.sum() < 12 or away.max() < 45:
        return None
    core = np.median(window[inside], axis=0)
    distance = np.linalg.norm(_PALETTE - core, axis=-1)
    name = _NAMES[int(distance.argmin())]
    if name not in COLOURS:
        return None
    direction = core - ground
    cover = np.clip(((window - ground) @ direction) / float(direction @ direction), 0.0, 1.0)
    # What lies off the line between ground and colour is something else: another colour, not a part of this shape.
    off = np.linalg.norm(window - ground - cover[..., None] * direction, axis=-1)
    cover = np.where(off < 0.5 * np.linalg.norm(direction), cover, 0.0)
    if not _MIN_AREA <= cover.sum() <= _MAX_AREA:
        return None
    masks, shapes = _masks()
    flat = cover.reshape(-1)
    shared = np.minimum(masks, flat).sum(axis=1)
    overlap = shared / (masks.sum(axis=1) + flat.sum() - shared)
    best = int(overlap.argmax())
    return (name, LAYOUTS[shapes[best]]) if overlap[best] >= _MIN_OVERLAP else None


def _window(pixels: np.ndarray, cell: str) -> np.ndarray:
    row, column = divmod(CELLS.index(cell), GRID)
    top, left = (min(round(k * _CELL), SIZE - _WINDOW) for k in (row, column))
    return pixels[top : top + _WINDOW, left : left + _WINDOW]


_WINDOW = 22


@cache
def _masks() -> tuple[np.ndarray, np.ndarray]:
    """Soft masks of every shape at a lattice of places and sizes, (M, 22·22) float32, with their shape's index, (M,)."""
    masks, shapes = [], []
    for index, shape in enumerate(LAYOUTS):
        for radius in (7.0, 7.5, 8.0, 8.5):
            for dx in np.arange(-2, 2.5, 0.5):
                for dy in np.arange(-2, 2.5, 0.5):
                    canvas = Image.new("L", (_WINDOW * _OVERSAMPLE,) * 2)
                    centre = _WINDOW / 2
                    place = ((centre + dx) * _OVERSAMPLE, (centre + dy) * _OVERSAMPLE)
                    _draw(ImageDraw.Draw(canvas), shape, *place, radius * _OVERSAMPLE, 255)
                    masks.append(np.asarray(canvas.reduce(_OVERSAMPLE), dtype=np.float32).reshape(-1) / 255)
                    shapes.append(index)
    return np.stack(masks), np.array(shapes)


# ── captions ─────────────────────────────────────────────────────────────────────────────────────────────────────────
# A caption is a lead that may name the background, one sentence part per object, and perhaps a tail naming the background.
# Any part may be missing or cut: `parse` finds the complete objects by colour, shape and place words alone, so it needs no
# grammar: within the text of one object exactly one colour, one shape and one place are named, in some order.

_SHAPE_WORDS = {
    "circle": ("circle", "disc", "dot"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "pyramid"),
    "star": ("star",),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop"),
}
_COLOUR_WORDS = {
    "red": ("red", "crimson"),
    "green": ("green",),
    "blue": ("blue",),
    "yellow": ("yellow",),
    "purple": ("purple", "violet"),
    "orange": ("orange",),
    "white": ("white",),
    "black": ("black",),
}
_GROUND_WORDS = {"gray": ("gray", "grey"), "pink": ("pink",), "teal": ("teal",), "brown": ("brown",)}
_ROW_WORDS = {"top": ("top", "upper"), "middle": ("middle",), "bottom": ("bottom", "lower")}
_SIDE_WORDS = {"left": ("left",), "center": ("center", "centre"), "right": ("right",)}


def _cell_words(cell: str) -> tuple[str, ...]:
    if cell == "center":
        return ("center", "centre", "very center")
    row, side = cell.split()
    return tuple(f"{r} {s}" for r in _ROW_WORDS[row] for s in _SIDE_WORDS[side])


_CELL_WORDS = {cell: _cell_words(cell) for cell in CELLS}

_TERSE = ("{c} {s} {p}", "{p} {c} {s}", "{c} {s}, {p}", "{p}: {c} {s}")
_PLAIN = (
    "a {c} {s} in the {p}",
    "a {c} {s} at the {p}",
    "in the {p} a {c} {s}",
    "at the {p} there is a {c} {s}",
    "the {p} has a {c} {s}",
    "a {s} in {c} at the {p}",
)
_WORDY = (
    "in the {p} of the picture you can see a nice {c} {s}",
    "there is also a {s} that is painted in {c}, placed in the {p} of the image",
    "a {c} {s} has been placed very carefully in the {p} part of the picture",
    "if you look at the {p} you will find a lovely {s} of {c} color",
    "the {p} part of this picture shows a {s}, and it is {c}",
    "somebody has drawn a really beautiful {c} {s} in the {p} area",
)
_GROUND = {
    "terse": ("{g} background", "on {g}", "{g} backdrop"),
    "plain": ("on a {g} background", "in front of a {g} background", "the background is {g}"),
    "wordy": (
        "everything is in front of a plain {g} background",
        "the whole background of the picture is {g}",
        "all of it stands on a smooth {g} backdrop",
    ),
}
_LEAD = {
    "terse": ("",),
    "plain": ("", "a picture of ", "a drawing with ", "an image of "),
    "wordy": (
        "this is a picture with some colored shapes: ",
        "a detailed drawing of simple things, and here is what it shows: ",
    ),
}
_BETWEEN = {"terse": (", ", "; "), "plain": (", ", " and ", "; ", ". "), "wordy": (", and ", ". ", "; ")}


def caption(scene: Scene, rng: random.Random, words: Words = "plain") -> str:
    """One of many ways to say the scene, its objects in order; the background comes first or last.

    `terse` stays within 75 tokens for nine objects, `plain` may pass them, `wordy` may pass 150.
    """
    patterns = {"terse": _TERSE, "plain": _PLAIN, "wordy": _WORDY}[words]
    habit = rng.choice(patterns) if words == "terse" or rng.random() < 0.3 else None  # one pattern throughout, or a mix
    parts = [_say(thing, rng, habit or rng.choice(patterns)) for thing in scene.objects]
    ground = rng.choice(_GROUND[words]).format(g=rng.choice(_GROUND_WORDS[scene.background]))
    parts.insert(0 if rng.random() < 0.6 else len(parts), ground)
    between = rng.choice(_BETWEEN[words])
    return rng.choice(_LEAD[words]) + between.join(parts)


def _say(thing: Object, rng: random.Random, pattern: str) -> str:
    said = pattern.format(
        c=rng.choice(_COLOUR_WORDS[thing.colour]),
        s=rng.choice(_SHAPE_WORDS[thing.shape]),
        p=rng.choice(_CELL_WORDS[thing.cell]),
    )
    return re.sub(r"\ba (?=orange)", "an ", said)


def parse(text: str) -> Scene:
    """Read a caption back, complete or cut off: what is complete counts.

    Colour, shape and place words are read in order; an object is complete as soon as one of each has been seen, and a
    second word of a kind before that starts a new object (the unfinished one is dropped).
    """
    background, objects, taken = "", [], set[str]()
    part: dict[str, str] = {}
    for kind, name, _ in mentions(text):
        if kind == "background":
            background = background or name
            continue
        if kind in part:
            part = {}
        part[kind] = name
        if len(part) == 3:
            if part["cell"] not in taken:
                objects.append(Object(**part))
                taken.add(part["cell"])
            part = {}
    return Scene(background, tuple(objects))


def mentions(text: str) -> list[tuple[str, str, slice]]:
    """Every word that names something, in order: its kind (`background`, `colour`, `shape`, `cell`), its name and its place."""
    pattern, meaning = _lexicon()
    return [(*meaning[match[0]], slice(*match.span())) for match in pattern.finditer(text.lower())]


@cache
def _lexicon() -> tuple[re.Pattern[str], dict[str, tuple[str, str]]]:
    meaning: dict[str, tuple[str, str]] = {}
    tables: tuple[tuple[str, dict[str, tuple[str, ...]]], ...] = (
        ("background", _GROUND_WORDS), ("colour", _COLOUR_WORDS), ("shape", _SHAPE_WORDS), ("cell", _CELL_WORDS),
    )  # fmt: skip
    for kind, table in tables:
        for name, ways in table.items():
            meaning.update(dict.fromkeys(ways, (kind, name)))
    longest_first = sorted(meaning, key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(map(re.escape, longest_first)) + r")\b"), meaning
