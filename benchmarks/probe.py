"""Linear probes from 1 to 16 examples a class and from all, beside scikit-learn alone and zero-shot.

    python benchmarks/probe.py [--model mini] [--train 20] [--test 10] [--draws 3] [--templates none]

Pictures of the mini world as in benchmarks/zero_shot.py. Columns: scikit-learn's LogisticRegression as OpenAI's README has it
(C = 0.316, 1,000 iterations, on the same unit vectors and the same draws); clipcond's probe from nothing, whose C is chosen
on the examples; its probe that starts from the zero-shot weights, with the spread over draws; the weights half way between
zero-shot and that (WiSE-FT, Wortsman et al. 2022), and the best of five mixtures, which is chosen on the test pictures.
`least`: of all draws the smallest difference between the probe from zero-shot and zero-shot, in points.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import time
import warnings
from importlib.metadata import version

import numpy as np
from sklearn.linear_model import LogisticRegression
from zero_shot import CLASSES, class_pictures

from clipcond.find.classify import build_classifier
from clipcond.find.labels import labels_of, read_templates
from clipcond.find.probe import Examples, draw, examples, probe
from clipcond.rerank.scorer import Scorer

SHOTS = (1, 2, 4, 8, 16)
OPENAI_C = 0.316


def scikit_learn(train: Examples, test: Examples, shots: int | None, draws: int) -> float:
    """Accuracy of the library alone, a mean over the draws of `probe`."""
    sets = [train] if shots is None else [draw(train, shots, seed) for seed in range(draws)]
    fitted = [LogisticRegression(C=OPENAI_C, max_iter=1000).fit(some.vectors, some.classes) for some in sets]
    return float(np.mean([each.score(test.vectors, test.classes) for each in fitted]))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="mini")
    options.add_argument("--train", type=int, default=20, help="pictures of each class")
    options.add_argument("--test", type=int, default=10, help="pictures of each class")
    options.add_argument(
        "--templates", default="none", help="of the zero-shot weights; names alone leave room to learn"
    )
    options.add_argument("--draws", type=int, default=3)
    given = options.parse_args()

    warnings.filterwarnings("ignore", message="The number of unique classes")
    print(f"{datetime.date.today()}, python {' '.join(sys.argv)}")
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "scikit-learn", "numpy"))
    print(f"{packages}, Python {platform.python_version()}")
    scorer = Scorer.load(given.model, device="cpu")
    train = examples(*class_pictures(scorer, given.train, seed=2))
    test = examples(*class_pictures(scorer, given.test, seed=3))
    of = build_classifier(scorer, labels_of(CLASSES, read_templates(given.templates)))
    shots = (*(count for count in SHOTS if count <= given.train), None)
    since = time.perf_counter()
    report = probe(train, test, of.vectors, logit_scale=of.head.scale, shots=shots, draws=given.draws)
    print(
        f"\nzero-shot {report.zero_shot:.1%} of {report.test:,} test pictures, {report.classes} classes, {report.train:,} to "
        f"train on; all fits in {time.perf_counter() - since:.0f} s\n"
    )
    print("| examples a class | scikit-learn alone | probe | from zero-shot | least | half way | best between |")
    print("|---|---|---|---|---|---|---|")
    for row in report.rows:
        alone = scikit_learn(train, test, row.shots, given.draws)
        print(
            f"| {row.shots or 'all'} | {alone:.1%} | {row.probe:.1%} | {row.from_zero_shot:.1%} ±{row.spread / 2:.1%} "
            f"| {100 * (row.least - report.zero_shot):+.1f} | {row.alphas[2]:.1%} | {max(row.alphas):.1%} |"
        )


if __name__ == "__main__":
    main()
