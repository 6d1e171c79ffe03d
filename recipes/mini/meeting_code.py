"""The vectors in which the scorer's two towers meet: what a picture shows and what a text says, feature by feature.

A cell's eight colours are the corners of a simplex in seven dimensions of their own, its six shapes those of one in five; the
background has three, and twelve more hold the colours and shapes of all objects wherever they stand, for texts that name no
place. A vector is the sum of the corners of what is known, made unit length. So two scenes that differ in one object differ
in the dimensions of its cell, a fragment of a caption is the sum of what it names, and of one phrase the cosine is the same
for whatever object it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipcond.mini import world

COLOURS, SHAPES, GROUNDS = list(world.COLOURS), list(world.LAYOUTS), list(world.BACKGROUNDS)
CELLS = len(world.CELLS)
WIDTH = 128  # of the vectors; 123 dimensions have a meaning, the others stay zero
ANYWHERE = 0.35  # how much a colour or shape weighs without its place
SHARPNESS = 30.0  # of the softmax over the corners of one simplex
UNKNOWN = -1
_PART = len(COLOURS) - 1 + len(SHAPES) - 1


def _simplex(corners: int) -> np.ndarray:
    """(C, C−1) rows of unit length, any two at the same distance."""
    centred = np.eye(corners) - 1 / corners
    basis = np.linalg.svd(centred)[2][: corners - 1]
    rows = centred @ basis.T
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _placed(rows: np.ndarray, start: int) -> np.ndarray:
    full = np.zeros((len(rows) + 1, WIDTH), dtype=np.float32)  # the last row, of UNKNOWN, stays zero
    full[:-1, start : start + rows.shape[1]] = rows
    return full


def _tables() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    colours, shapes, grounds = _simplex(len(COLOURS)), _simplex(len(SHAPES)), _simplex(len(GROUNDS))
    split, half = len(COLOURS) - 1, 2**-0.5
    of_cell = [(_placed(half * colours, c * _PART), _placed(half * shapes, c * _PART + split)) for c in range(CELLS)]
    rest = CELLS * _PART
    found = (
        np.stack([colour for colour, _ in of_cell]),
        np.stack([shape for _, shape in of_cell]),
        _placed(grounds, rest),
        _placed(ANYWHERE * colours, rest + 3),
        _placed(ANYWHERE * shapes, rest + 3 + split),
    )
    return tuple(map(torch.from_numpy, found))  # type: ignore[return-value]


CELL_COLOURS, CELL_SHAPES, BACKGROUND, ANY_COLOUR, ANY_SHAPE = _tables()  # (9, 9, P), (9, 7, P), (5, P), (9, P), (7, P)


@dataclass(slots=True)
class Known:
    """What a picture shows or a text says: numbers of colours and shapes by cell, those without a cell, the background."""

    colours: list[int]
    shapes: list[int]
    loose_colours: list[int]
    loose_shapes: list[int]
    background: int = UNKNOWN

    @classmethod
    def nothing(cls) -> Known:
        return cls([UNKNOWN] * CELLS, [UNKNOWN] * CELLS, [], [])

    def add(self, colour: str | None, shape: str | None, cell: str | None) -> None:
        c = COLOURS.index(colour) if colour else UNKNOWN
        s = SHAPES.index(shape) if shape else UNKNOWN
        if cell:
            at = world.CELLS.index(cell)
            self.colours[at], self.shapes[at] = c, s
        else:
            self.loose_colours.append(c)
            self.loose_shapes.append(s)


def of_scene(scene: world.Scene) -> Known:
    known = Known.nothing()
    for thing in scene.objects:
        known.add(thing.colour, thing.shape, thing.cell)
    if scene.background:
        known.background = GROUNDS.index(scene.background)
    return known


def of_caption(caption: str, borders: Sequence[int]) -> list[Known]:
    """What each piece of a complete caption says, cut at the borders (places in the text)."""
    edges = [0, *borders, len(caption)]
    pieces = [Known.nothing() for _ in edges[1:]]
    named: list[tuple[str, str, slice]] = []
    for kind, name, place in world.mentions(caption):
        if kind == "background":
            for number in _inside(place, edges):
                pieces[number].background = GROUNDS.index(name)
        else:
            named.append((kind, name, place))
    per_object = 3 if any(kind == "cell" for kind, _, _ in named) else 2
    for at in range(0, len(named), per_object):
        parts: dict[int, dict[str, str]] = {}
        for kind, name, place in named[at : at + per_object]:
            for number in _inside(place, edges):
                parts.setdefault(number, {})[kind] = name
        for number, part in parts.items():
            pieces[number].add(part.get("colour"), part.get("shape"), part.get("cell"))
    return pieces


def _inside(place: slice, edges: Sequence[int]) -> Iterable[int]:
    """The number of the piece that holds all of a word; none if a border cuts it."""
    return [n for n in range(len(edges) - 1) if edges[n] <= place.start and place.stop <= edges[n + 1]]


def vectors(known: Sequence[Known]) -> Tensor:
    """(N, P) float32 of unit length; of nothing known, zero."""
    colours = torch.tensor([each.colours for each in known])
    shapes = torch.tensor([each.shapes for each in known])
    grounds = torch.tensor([each.background for each in known])
    cells = torch.arange(CELLS)
    total = BACKGROUND[grounds]
    total = total + (CELL_COLOURS[cells, colours] + CELL_SHAPES[cells, shapes]).sum(1)
    total = total + (ANY_COLOUR[colours] + ANY_SHAPE[shapes]).sum(1)
    for row, each in enumerate(known):
        if each.loose_colours:
            total[row] += (ANY_COLOUR[each.loose_colours] + ANY_SHAPE[each.loose_shapes]).sum(0)
    return torch.nn.functional.normalize(total, dim=-1)


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """How well vectors say what is known: cosine with the code, and which corner of each known simplex is nearest."""

    cosine: Tensor  # (N,)
    colours: Tensor  # (N, 9, 8) logits
    shapes: Tensor  # (N, 9, 6) logits
    known_colours: Tensor  # (N, 9), UNKNOWN where nothing is
    known_shapes: Tensor

    def loss(self) -> Tensor:
        """Squared distance to the code, and cross-entropy over the corners, where another object would be one step away."""
        return 4 * (1 - self.cosine).mean() + sum(cross(*pair) for pair in self._pairs())

    def summary(self) -> dict[str, float]:
        found = [float((logits.argmax(-1) == known)[known >= 0].float().mean()) for logits, known in self._pairs()]
        return {"cosine": float(self.cosine.mean()), "colours": found[0], "shapes": found[1]}

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        return [(self.colours, self.known_colours), (self.shapes, self.known_shapes)]


def cross(logits: Tensor, known: Tensor) -> Tensor:
    count = (known >= 0).sum().clamp(min=1)
    total = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), known.flatten(), ignore_index=UNKNOWN, reduction="sum"
    )
    return total / count


def reading(unit: Tensor, known: Sequence[Known]) -> Reading:
    """unit: (N, P) vectors of unit length, with what each of them should say."""
    return Reading(
        cosine=(unit * vectors(known)).sum(1),
        colours=SHARPNESS * torch.einsum("np,cap->nca", unit, CELL_COLOURS[:, :-1]),
        shapes=SHARPNESS * torch.einsum("np,cap->nca", unit, CELL_SHAPES[:, :-1]),
        known_colours=torch.tensor([each.colours for each in known]),
        known_shapes=torch.tensor([each.shapes for each in known]),
    )
