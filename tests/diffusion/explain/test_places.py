"""Places in words, from maps and from prompts."""

from __future__ import annotations

import pytest

from clipcond.diffusion.explain.places import CELLS, named_cells, place_of, strongest_cell
from clipcond.mini import world


def grid(**shares: float) -> list[list[float]]:
    flat = [shares.get(cell.replace(" ", "_"), 0.0) for cell in CELLS]
    return [flat[:3], flat[3:6], flat[6:]]


def test_the_cells_are_those_of_the_scene_world() -> None:
    assert CELLS == world.CELLS


@pytest.mark.parametrize(
    ("shares", "place"),
    [
        ({"top_left": 0.8, "center": 0.2}, "top left"),
        ({"top_left": 0.3, "top_center": 0.3, "top_right": 0.3, "center": 0.1}, "top"),
        ({"top_right": 0.3, "middle_right": 0.3, "bottom_right": 0.4}, "right"),
        ({"middle_left": 0.4, "center": 0.3, "middle_right": 0.3}, "middle row"),
        ({"top_left": 0.4, "bottom_right": 0.35, "center": 0.25}, "top left and bottom right"),
        ({"top_left": 0.25, "top_center": 0.25, "middle_left": 0.25, "center": 0.25}, "toward the top left"),
        ({cell.replace(" ", "_"): 1 / 9 for cell in CELLS}, "everywhere"),
    ],
)
def test_a_map_is_said_in_words(shares: dict[str, float], place: str) -> None:
    assert place_of(grid(**shares)) == place


def test_the_strongest_cell() -> None:
    assert strongest_cell(grid(center=0.4, top_left=0.6)) == "top left"


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("a red circle at the top left", {"top left"}),
        ("upper-right: a star", {"top right"}),
        ("a ring in the center", {"center"}),
        ("a tree on the right", {"top right", "middle right", "bottom right"}),
        ("the right hand of a man", None),
        ("on the right hand side", None),
        ("a red circle", None),
        ("from the top left to the bottom right", None),
    ],
)
def test_a_phrase_names_a_place(text: str, cells: set[str] | None) -> None:
    assert named_cells(text) == cells
