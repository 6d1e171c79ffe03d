"""Blazon: the scenes of `clipcond.mini.world` in the words of heraldry, which the embedded model does not know.

    python benchmarks/blazon.py --seed 3      # a few blazons, with the same scenes in English

Dexter is the bearer's right, the viewer's left. The four fields are rare tinctures of later heralds.
"""

from __future__ import annotations

import argparse
import random

from clipcond.mini import world

TINCTURES = {
    "red": "gules", "blue": "azure", "green": "vert", "black": "sable", "white": "argent", "yellow": "or",
    "purple": "purpure", "orange": "tenné",
}  # fmt: skip
CHARGES = {
    "circle": "roundel", "square": "billet", "triangle": "pile", "star": "mullet", "cross": "cross", "ring": "annulet",
}  # fmt: skip
PLACES = {
    "top left": "in dexter chief", "top center": "in chief", "top right": "in sinister chief",
    "middle left": "in dexter flank", "center": "in fess point", "middle right": "in sinister flank",
    "bottom left": "in dexter base", "bottom center": "in base", "bottom right": "in sinister base",
}  # fmt: skip
FIELDS = {"gray": "cendrée", "pink": "carnation", "teal": "céleste", "brown": "brunâtre"}

_CHARGE = ("a {s} {c} {p}", "{p} a {s} {c}", "{p}, a {s} {c}", "{s} {c} {p}")
_FIELD = ("{g}", "a field {g}", "on a field {g}")


def blazon(scene: world.Scene, rng: random.Random) -> str:
    """One of many ways to blazon a scene: the field first, then its charges in order."""
    pattern = rng.choice(_CHARGE)
    said = [
        pattern.format(s=CHARGES[thing.shape], c=TINCTURES[thing.colour], p=PLACES[thing.cell]).replace(
            "a annulet", "an annulet"
        )
        for thing in scene.objects
    ]
    between = rng.choice((", ", "; "))
    return between.join([rng.choice(_FIELD).format(g=FIELDS[scene.background]), *said])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seed", type=int, default=0)
    rng = random.Random(options.parse_args().seed)
    for _ in range(5):
        scene = world.sample(rng, most=4)
        print(blazon(scene, rng))
        print(f"    {world.caption(scene, rng, 'terse')}")


if __name__ == "__main__":
    main()
