"""The explanation of a prompt: for each of its phrases how much it does in the picture, and where."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from clipcond.diffusion.explain.effects import cells, concentrated
from clipcond.diffusion.explain.places import place_of
from clipcond.diffusion.explain.spans import Side
from clipcond.diffusion.findings import PlacedFinding


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedPhrase:
    """A phrase and what it does. text is prompt[start:end] of its side.

    strength: of its effect, the whole side's being 1; mean over the pictures.   where: in the first picture, in words.
    pooled_share: of its effect, what comes through the pooled vector; None in families without one.   dead: it does
    nothing.   cut: the stock pipeline never reads it.   through: the phrase that alone carries it to the denoiser.
    part: of an AND.
    """

    text: str
    start: int
    end: int
    side: Side
    part: int
    strength: float
    where: str
    dead: bool
    cut: bool = False
    pooled_share: float | None = None
    through: str | None = None

    def to_json(self) -> dict[str, object]:
        """Of strings and numbers only."""
        return {
            "text": self.text,
            "start": self.start,
            "end": self.end,
            "side": self.side,
            "part": self.part,
            "strength": round(self.strength, 6),
            "where": self.where,
            "dead": self.dead,
            "cut": self.cut,
            "pooled_share": None if self.pooled_share is None else round(self.pooled_share, 4),
            "through": self.through,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExplainedPicture:
    """A picture and the maps over it. seed: of its noise."""

    image: Image.Image
    seed: int
    maps: Tensor  # (P, h, w) float32 on the CPU, in the latents' resolution, mean over the steps

    @property
    def cells(self) -> list[list[list[float]]]:
        """(P, 3, 3): what each cell of a grid holds of each map without its floor; each adds up to 1."""
        grid = cells(concentrated(self.maps))
        found: list[list[list[float]]] = (grid / grid.sum(dim=(1, 2), keepdim=True).clamp_min(1e-30)).tolist()
        return found

    @property
    def places(self) -> list[str]:
        """The place where each phrase acts, in words."""
        return [place_of(each) for each in self.cells]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """The effects of the phrases of a prompt in its pictures; P phrases, those of the negative prompt last.

    at_steps: the steps of the sampler, from 1, that the maps are the mean of.   rows: of the denoiser, that it took.
    findings: what stands out, such as phrases that do nothing.
    """

    prompt: str
    negative_prompt: str
    phrases: tuple[ExplainedPhrase, ...]
    pictures: tuple[ExplainedPicture, ...]
    findings: tuple[PlacedFinding, ...]
    steps: int
    at_steps: tuple[int, ...]
    rows: int
    dialect: str
    family: str
    stock: bool = False

    @property
    def maps(self) -> Tensor:
        """(P, h, w) float32, of the first picture."""
        return self.pictures[0].maps

    @property
    def strengths(self) -> tuple[float, ...]:
        """(P): each phrase's effect beside that of the whole prompt of its side."""
        return tuple(each.strength for each in self.phrases)

    @property
    def dead(self) -> tuple[str, ...]:
        """The phrases that do nothing."""
        return tuple(each.text for each in self.phrases if each.dead)

    def to_json(self, *, maps: bool = False) -> dict[str, object]:
        """Of dicts, lists, strings and numbers only. maps: with all numbers of the maps, not the nine cells alone."""
        return {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "dialect": self.dialect,
            "family": self.family,
            "stock": self.stock,
            "steps": self.steps,
            "at_steps": list(self.at_steps),
            "rows": self.rows,
            "phrases": [each.to_json() for each in self.phrases],
            "pictures": [_picture_json(each, maps) for each in self.pictures],
            "findings": [
                {
                    "code": each.code,
                    "message": each.message,
                    "start": each.start,
                    "end": each.end,
                    "side": each.argument,
                }
                for each in self.findings
            ],
        }


def _picture_json(picture: ExplainedPicture, maps: bool) -> dict[str, object]:
    found: dict[str, object] = {
        "seed": picture.seed,
        "width": picture.image.width,
        "height": picture.image.height,
        "where": picture.places,
        "cells": [[[round(cell, 4) for cell in row] for row in grid] for grid in picture.cells],
    }
    return found | ({"maps": picture.maps.tolist()} if maps else {})
