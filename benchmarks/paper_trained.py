"""What the trainings of paper_training.py say: findings about ways to train, from the files that they left."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from paper_data import PackedEmoji
from paper_findings import (
    Finding,
    Line,
    Measured,
    difference,
    effective_robustness,
    fit_line,
    not_below,
    share,
    verdict,
)

from clipcond.errors import DataError

Result = dict[str, Any]
PLAIN, VENDOR, SHIFT = "seen_vendors", "unseen_vendor", "shift"
SAID = {PLAIN: "seen vendors", VENDOR: "a vendor never seen", SHIFT: "sets of one colour"}


class Trained:
    """The complete runs of a folder, by name."""

    def __init__(self, folder: Path, data: PackedEmoji) -> None:
        self.data = data
        read = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
        self.runs: dict[str, Result] = {result["run"]["name"]: result for result in read if result["complete"]}
        for name, result in self.runs.items():
            for test, ranks in result["ranks"].items():
                if len(ranks) != len(data.rows(test)):
                    raise DataError(
                        f"{folder / name}.json has {len(ranks):,} answers to {test}, the packed file {len(data.rows(test)):,} "
                        "pictures of it; pack the data again that was trained on"
                    )

    def alike(self, name: str) -> list[Result]:
        """Return a run and those that differ from it in the seed alone."""
        return [result for key, result in self.runs.items() if key == name or key.startswith(f"{name}-seed-")]

    def clusters(self, test: str) -> np.ndarray:
        """Return the emoji of each picture of a test."""
        return self.data.emoji[self.data.rows(test)]

    def right(self, name: str, test: str, ranks: str = "ranks") -> np.ndarray:
        """Return the answers of a run to a test, means over its seeds."""
        return np.mean([np.array(result[ranks][test]) == 0 for result in self.alike(name)], axis=0)

    def row(self, name: str, test: str, said: str) -> Measured:
        return share(said, self.right(name, test), self.clusters(test))

    def apart(self, first: str, second: str, test: str, said: str) -> Measured:
        return difference(said, self.right(first, test), self.right(second, test), self.clusters(test))

    def line(self, shifted: str) -> Line:
        """Return the line of all supervised models, at every point where one was measured."""
        points = [point for result in self.kind("supervised") for point in result["checkpoints"]]
        count = len(self.data.rows(PLAIN))
        return fit_line([point[PLAIN] for point in points], [point[shifted] for point in points], count)

    def kind(self, kind: str) -> list[Result]:
        return [result for result in self.runs.values() if result["run"]["kind"] == kind]

    def better(self, names: Iterable[str]) -> str:
        """Return the run with the most right answers on the vendors that training saw."""
        return max((name for name in names if name in self.runs), key=lambda name: self.right(name, PLAIN).mean())


def findings(of: Trained) -> list[Finding]:
    """Return what the runs that are there can decide."""
    asked = (
        (("contrastive", "supervised"), robustness), (("contrastive", "words"), objectives),
        (("contrastive", "batch-64", "batch-2048"), batches), (("contrastive", "scale-14.2857"), temperatures),
    )  # fmt: skip
    return [found for needed, make in asked if all(name in of.runs for name in needed) for found in make(of)]


def robustness(of: Trained) -> list[Finding]:
    """Zero-shot against supervised: who is better where, and by how much more than accuracy alone explains."""
    names = {"contrastive": "zero-shot by labels", "supervised": "supervised, a class for each emoji"}
    rows = [of.row(name, test, f"{SAID[test]}: {said}") for test in SAID for name, said in names.items()]
    found = []
    for test in (VENDOR, SHIFT):
        zero_shot = of.right("contrastive", PLAIN), of.right("contrastive", test)
        robust = effective_robustness(
            f"{SAID[test]}: zero-shot above what supervised models of its accuracy on seen vendors reach", *zero_shot,
            of.line(test), of.clusters(PLAIN), of.clusters(test),
        )  # fmt: skip
        apart = of.apart("contrastive", "supervised", test, f"{SAID[test]}: zero-shot above supervised")
        found.append(
            Finding(key=f"robust {test}", claim="zero-shot is more robust than supervised (CLIP on ImageNet-Sketch: "
                    f"60.2 against 25.2): {SAID[test]}",
                    rows=(*(rows if test == VENDOR else ()), apart, robust), decided_by=robust, verdict=verdict(robust))
        )  # fmt: skip
    return found


def objectives(of: Trained) -> list[Finding]:
    """Contrastive against the prediction of the caption's words, at equal compute."""
    names = {"contrastive": "contrastive, zero-shot", "words": "words of the caption, zero-shot"}
    tests = SAID | {"unseen_emoji": "emoji never seen, among each other"}
    rows = [of.row(name, test, f"{where}: {said}") for test, where in tests.items() for name, said in names.items()]
    decided = of.apart("contrastive", "words", VENDOR, "contrastive above words")
    earlier = reached(of, of.right("words", VENDOR).mean())
    note = (
        f"Contrastive training has what words reach at the end after {earlier:.0%} of its pictures (in a schedule that goes on)."
        if earlier
        else "Contrastive training never has what words reach."
    )
    return [Finding(key="objective", claim="contrastive learns faster than predicting words (CLIP: 4 times)",
                    rows=(*rows, decided), decided_by=decided, verdict=verdict(decided), note=note)]  # fmt: skip


def reached(of: Trained, accuracy: float, test: str = VENDOR) -> float:
    """Return the share of its pictures after which the contrastive run has an accuracy, between measurements; 0 for never."""
    points = of.runs["contrastive"]["checkpoints"]
    last = {"samples": 0, test: 0.0}
    for point in points:
        if point[test] >= accuracy:
            part = (accuracy - last[test]) / max(1e-9, point[test] - last[test])
            return float(last["samples"] + part * (point["samples"] - last["samples"])) / points[-1]["samples"]
        last = point
    return 0.0


def by_batch(of: Trained) -> dict[int, str]:
    """Return by batch the run of the better learning rate."""
    sizes: dict[int, list[str]] = {}
    for name, result in of.runs.items():
        run = result["run"]
        if run["kind"] == "contrastive" and run["temperature"] is None and "-seed-" not in name:
            sizes.setdefault(run["batch"], []).append(name)
    return {size: of.better(names) for size, names in sorted(sizes.items())}


def batches(of: Trained) -> list[Finding]:
    """Batches of 64 to 2,048 pictures at equal samples."""
    names = by_batch(of)
    rows = [of.row(name, VENDOR, f"batches of {size:,}") for size, name in names.items()]
    large, small = max(names), min(names)
    decided = of.apart(names[large], names[small], VENDOR, f"{large:,} above {small:,}")
    best = max(names, key=lambda size: of.right(names[size], VENDOR).mean())
    return [Finding(key="batch", claim="large batches help contrastive training (CLIP: 32,768)", rows=(*rows, decided),
                    decided_by=decided, verdict=verdict(decided), note=f"The best is {best:,}, at equal samples.")]  # fmt: skip


def temperatures(of: Trained) -> list[Finding]:
    """The learned temperature against fixed ones."""
    fixed = [name for name in of.runs if name.startswith("scale-")]
    learned = of.runs["contrastive"]["scale"]
    rows = [of.row("contrastive", VENDOR, f"learned, from 14.3 to {learned:.3g}")]
    rows += [of.row(name, VENDOR, f"fixed at {of.runs[name]['run']['temperature']:.3g}") for name in fixed]
    best = max(fixed, key=lambda name: of.right(name, VENDOR).mean())
    decided = of.apart(
        "contrastive", best, VENDOR, f"learned above the best that is fixed ({best.removeprefix('scale-')})"
    )
    return [Finding(key="temperature", claim="a learned temperature does as well as the best fixed one", rows=(*rows, decided),
                    decided_by=decided, verdict=not_below(decided))]  # fmt: skip


def points(results: Sequence[Result], test: str) -> tuple[list[float], list[float]]:
    """Return the accuracies of all measurements on seen vendors and on a test."""
    all_of = [point for result in results for point in result["checkpoints"]]
    return [point[PLAIN] for point in all_of], [point[test] for point in all_of]
