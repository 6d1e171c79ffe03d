"""Draw docs/images/rooms.svg: the floors of pyproject's layer contract, and which room really imports which.

An arrow that a chain of others implies is left out.

    python scripts/rooms_picture.py [--check]

--check: write nothing; exit 1 if the picture is not what the code gives.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "images" / "rooms.svg"
WIDTH, ROW, BOX, TOP, LEFT = 900, 74, 40, 24, 16
# what each room is for, in few words; a room of pyproject without one fails
USES = {
    "cli": "parse, call, render",
    "pages": "HTML from results",
    "workflows": "one module a job",
    "train": "retrain encoders",
    "find": "ask about pictures",
    "rerank": "score and sort pictures",
    "diffusion": "diffusers pipelines",
    "models": "models by name",
    "condition": "weights, parts, lengths",
    "score": "arithmetic on vectors",
    "encode": "text and image encoders",
    "images": "find, decode, prepare, write",
    "prompt": "tokens, dialects, plans",
    "mini": "the embedded model",
    "files": "whole files",
    "runtime": "hub, devices, quiet",
    "resources": "files that ship",
    "wording": "text of others, safe",
    "errors": "what can go wrong",
}
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1d2430; text-anchor: middle }
  .use { font-size: 11px; fill: #5b6678 }
  rect { fill: #eef3fb; stroke: #4a6fa5; rx: 6 }
  path { fill: none; stroke: #7a8ba6; stroke-opacity: .8; stroke-width: 1.3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e7ecf4 } .use { fill: #9aa7bb } rect { fill: #1f2a3a; stroke: #6f93c9 } path { stroke: #8fa3c2 }
  }
"""


def floors() -> list[list[str]]:
    """Return the rooms of each floor, the highest first, as pyproject's contract has them; private files left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(each for each in project["tool"]["importlinter"]["contracts"] if each["type"] == "layers")
    rooms = [[room.strip() for room in layer.split("|")] for layer in contract["layers"]]
    return [[room for room in floor if not room.startswith("_")] for floor in rooms]


def picture() -> str:
    """Return the SVG."""
    graph = runpy.run_path(str(ROOT / "scripts" / "module_graph.py"))
    imports = graph["rooms"](graph["graph"](graph["modules"]()))
    places: dict[str, tuple[float, float, float]] = {}  # centre, top, width
    for number, floor in enumerate(floors()):
        width = min((WIDTH - 2 * LEFT - 20 * (len(floor) - 1)) / len(floor), 230.0)
        start = (WIDTH - len(floor) * width - 20 * (len(floor) - 1)) / 2
        for index, room in enumerate(floor):
            places[room] = (start + index * (width + 20) + width / 2, TOP + number * ROW, width)
    lines = [_arrow(places[room], places[other]) for room, other in _direct(imports) if {room, other} <= {*places}]
    boxes = [_box(room, *place) for room, place in places.items()]
    height = TOP + len(floors()) * ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="The rooms of clipcond; imports point down">\n<style>{STYLE}</style>\n'
        + "\n".join([*lines, *boxes])
        + "\n</svg>\n"
    )


def _direct(imports: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Return the imports that no chain of others implies; there are no circles."""

    def reached(room: str) -> set[str]:
        return set().union(*({other} | reached(other) for other in imports.get(room, ())))

    return sorted(
        (room, other)
        for room, others in imports.items()
        for other in others
        if not any(other in reached(between) for between in others - {other})
    )


def _box(room: str, centre: float, top: float, width: float) -> str:
    return (
        f'<rect x="{centre - width / 2:.0f}" y="{top:.0f}" width="{width:.0f}" height="{BOX}"/>'
        f'<text x="{centre:.0f}" y="{top + 17:.0f}">{room}</text>'
        f'<text class="use" x="{centre:.0f}" y="{top + 32:.0f}">{USES[room]}</text>'
    )


def _arrow(source: tuple[float, float, float], target: tuple[float, float, float]) -> str:
    x, y, goal, bottom = source[0], source[1] + BOX, target[0], target[1]
    bend = (bottom - y) * 0.5
    return (
        f'<path d="M{x:.0f} {y:.0f} C{x:.0f} {y + bend:.0f} {goal:.0f} {bottom - bend:.0f} {goal:.0f} {bottom:.0f}"/>'
    )


def main() -> int:
    drawn = picture()
    if "--check" in sys.argv[1:]:
        return int(drawn != OUT.read_text(encoding="utf-8"))
    OUT.write_text(drawn, encoding="utf-8")
    print(OUT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
