"""Where described objects are, told by the embedded model: ways to read its patches, side by side, on scenes it never saw.

    python benchmarks/detect.py --scenes 300

Each object that is alone in its scene with its colour and shape is asked for without its place ("a red circle"). The right
cell is the one of nine in which the object was drawn; a map says the cell of its hottest point.
"""

from __future__ import annotations

import argparse
import platform
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from clipcond.encode.patch_tower import PatchTower
from clipcond.find.boxes import Box, overlap, regions_of
from clipcond.find.classify import build_classifier
from clipcond.find.heat_maps import HeatMaps, PatchMaps, WindowMaps
from clipcond.find.labels import Label
from clipcond.images.places import cell_at
from clipcond.mini import world
from clipcond.rerank.scorer import Scorer
from clipcond.score.correlation import average_ranks
from clipcond.score.statistics import Interval
from clipcond.score.thresholds import wilson

LABELS = tuple(f"a {colour} {shape}" for colour in world.COLOURS for shape in world.LAYOUTS)


@dataclass(frozen=True)
class Sample:
    """A picture of the scene world. unique: (label's number, cell, box) of objects that no other is like."""

    image: Image.Image
    there: frozenset[int]
    unique: tuple[tuple[int, str, Box], ...]


def samples(count: int, seed: int) -> list[Sample]:
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        scene = world.sample(rng, least=2)
        image = world.render(scene, rng)
        numbers = [LABELS.index(f"a {thing.colour} {thing.shape}") for thing in scene.objects]
        unique = tuple(
            (number, thing.cell, box_of(image, scene, thing.cell))
            for number, thing in zip(numbers, scene.objects, strict=True)
            if numbers.count(number) == 1
        )
        found.append(Sample(image, frozenset(numbers), unique))
    return found


def box_of(image: Image.Image, scene: world.Scene, cell: str) -> Box:
    """The pixels of a cell that are not of the background."""
    row, column = divmod(world.CELLS.index(cell), world.GRID)
    side = world.SIZE / world.GRID
    top, left = round(row * side), round(column * side)
    window = np.asarray(image)[top : round((row + 1) * side), left : round((column + 1) * side)].astype(int)
    away = np.abs(window - np.array(world.BACKGROUNDS[scene.background])).sum(axis=-1) > 30
    rows, columns = np.flatnonzero(away.any(axis=1)), np.flatnonzero(away.any(axis=0))
    return (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)


class Against:
    """Maps from which something is subtracted, label by label, that all labels have in common."""

    def __init__(self, maps: HeatMaps, common: HeatMaps | None = None) -> None:
        """common: maps of what is subtracted, one; None for the mean of all labels."""
        self.maps, self.common = maps, common

    def of(self, image: Image.Image) -> np.ndarray:
        heat = self.maps.of(image)
        return heat - (heat.mean(axis=0, keepdims=True) if self.common is None else self.common.of(image))


def ways(scorer: Scorer) -> dict[str, HeatMaps]:
    tower = scorer.dual.image
    patches = PatchTower("mini", tower)
    vectors = build_classifier(scorer, [Label(name=text, texts=(text,)) for text in LABELS]).vectors
    nothing = build_classifier(scorer, [Label(name="nothing", texts=("",))]).vectors
    patch = {way: PatchMaps(patches, tower, vectors, way) for way in ("states", "values", "surgery")}
    return {
        "last hidden states, as they are": patch["states"],
        "values of the last block (MaskCLIP)": patch["values"],
        "those values less the mean of all labels": Against(patch["values"]),
        "those values less the empty text": Against(patch["values"], PatchMaps(patches, tower, nothing, "values")),
        "values alike, last half of the blocks (`--method patches`)": patch["surgery"],
        "values alike, less the mean of all labels": Against(patch["surgery"]),
        "values alike, less the empty text": Against(patch["surgery"], PatchMaps(patches, tower, nothing)),
        "windows alone on the ground (`--method windows`)": WindowMaps(tower, vectors),
    }


def measured(maps: HeatMaps, pictures: Sequence[Sample]) -> list[str]:
    """Right cells, boxes, places too many, presence, and time, as the cells of a row."""
    right, extra = 0, 0
    overlaps: list[float] = []
    peaks: list[np.ndarray] = []
    there: list[list[bool]] = []
    spent = 0.0
    for sample in pictures:
        since = time.perf_counter()
        heat = maps.of(sample.image)
        spent += time.perf_counter() - since
        peaks.append(heat.max(axis=(1, 2)))
        there.append([number in sample.there for number in range(len(LABELS))])
        scale = world.SIZE / heat.shape[1]
        for number, cell, box in sample.unique:
            regions = regions_of(heat[number])
            x, y = regions[0].peak
            right += cell_at(x / heat.shape[2], y / heat.shape[1]) == cell
            overlaps.append(overlap(tuple(scale * side for side in regions[0].box), box))
            extra += len(regions) - 1
    count = sum(len(sample.unique) for sample in pictures)
    return [
        share(right, count),
        f"{np.mean(np.array(overlaps) >= 0.5):.0%}",
        f"{extra / count:.2f}",
        f"{area(np.array(peaks), np.array(there)):.3f}",
        f"{1000 * spent / len(pictures):.0f} ms",
    ]


def share(right: int, count: int) -> str:
    found: Interval = wilson(right, count)
    return f"{found.value:.1%} [{100 * found.low:.1f}, {100 * found.high:.1f}] ({right} of {count})"


def area(scores: np.ndarray, there: np.ndarray) -> float:
    """The probability that a label that is there has a higher score than one that is not, over all pictures (ROC AUC)."""
    flat, is_there = scores.ravel(), there.ravel()
    ranks = average_ranks(flat)
    positive = int(is_there.sum())
    return float((ranks[is_there].sum() - positive * (positive + 1) / 2) / (positive * (len(flat) - positive)))


def whole_pictures(scorer: Scorer, pictures: Sequence[Sample]) -> float:
    """The same for the cosine of the whole picture, which says nothing about where."""
    vectors = build_classifier(scorer, [Label(name=text, texts=(text,)) for text in LABELS]).vectors
    embedded = scorer.dual.image.embed([sample.image for sample in pictures]).double().numpy()
    there = np.array([[number in sample.there for number in range(len(LABELS))] for sample in pictures])
    return area(embedded @ vectors.T, there)


def doubts(maps: HeatMaps, pictures: Sequence[Sample], seed: int) -> tuple[str, str]:
    """Shares of first places that another label fits better: of labels that are there, and of as many that are not.

    The labels of a run are the scene's and as many others.
    """
    rng, counts = random.Random(seed), {True: [0, 0], False: [0, 0]}
    for sample in pictures:
        others = rng.sample(sorted(set(range(len(LABELS))) - sample.there), len(sample.there))
        asked = [*sample.there, *others]
        heat = maps.of(sample.image)[asked]
        for number, one in zip(asked, heat, strict=True):
            y, x = divmod(int(one.argmax()), one.shape[1])
            counts[number in sample.there][0] += int(heat[:, y, x].argmax()) != asked.index(number)
            counts[number in sample.there][1] += 1
    return share(*counts[True]), share(*counts[False])


def floor(maps: HeatMaps, others: Sequence[Sample], pictures: Sequence[Sample]) -> tuple[float, str, str]:
    """The score that 95 % of what is there reaches on other scenes, and the shares of labels on these whose best place does:

    of those that are there, and of those that are not.
    """
    scores, there = best_places(maps, others)
    least = round(float(np.percentile(scores[there], 5)), 2)
    scores, there = best_places(maps, pictures)
    over = scores >= least
    return least, share(int(over[there].sum()), int(there.sum())), share(int(over[~there].sum()), int((~there).sum()))


def best_places(maps: HeatMaps, pictures: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """(N, L) scores of the hottest point of every label, and which labels are there."""
    scores = np.array([maps.of(sample.image).max(axis=(1, 2)) for sample in pictures])
    return scores, np.array([[number in sample.there for number in range(len(LABELS))] for sample in pictures])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scenes", type=int, default=300)
    options.add_argument("--windows", type=int, default=100, help="scenes for the windows, which are slow")
    options.add_argument("--seed", type=int, default=2026)
    given = options.parse_args()
    torch.set_num_threads(1)

    scorer = Scorer.load("mini", device="cpu")
    pictures = samples(given.scenes, given.seed)
    found: dict[str, HeatMaps] = ways(scorer)
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, one thread; {given.scenes} scenes, seed {given.seed}"
    )
    print("| heat | right cell | box with IoU ≥ 0.5 | places too many | there or not (ROC AUC) | a picture |")
    print("|---|---|---|---|---|---|")
    for name, maps in found.items():
        own = pictures[: given.windows] if isinstance(maps, WindowMaps) else pictures
        print(f"| {name} | {' | '.join(measured(maps, own))} |", flush=True)
    print(f"| the whole picture's cosine | – | – | – | {whole_pictures(scorer, pictures):.3f} | – |")
    patches = found["values alike, last half of the blocks (`--method patches`)"]
    true, false = doubts(patches, pictures, given.seed)
    print(f"“rather”, by patches: of labels that are there {true}, of as many that are not {false}")
    least, true, false = floor(patches, samples(given.scenes, given.seed + 1), pictures)
    print(f"best place at {least} or more, by patches: of labels that are there {true}, of all others {false}")


if __name__ == "__main__":
    main()
