"""Zero-shot classes with and without templates, beside open_clip's `build_zero_shot_classifier` on the same embeddings.

    python benchmarks/zero_shot.py [--model mini] [--a-class 10] [--runs 7] [--templates imagenet7] [--architecture ViT-B-32]

Pictures of the mini world: 24 classes, a colour and a shape that is in the centre, with another thing elsewhere. First the
accuracy of each set of templates by both libraries, and the largest difference of their classifiers' numbers. Then the
seconds to build the classifier of all classes with one set: clipcond in batches of 64 texts, clipcond once more with
its cache, open_clip with its ten classes at a time and with one class at a time, as CLIP_benchmark and its like do.
Contestants take turns; tables give the median with the least and the most, ratios run by run. Both have the same weights;
with --architecture the times are those of a text encoder of that shape with random weights.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from clipcond.encode.embedding_cache import EmbeddingCache
from clipcond.find.classify import build_classifier
from clipcond.find.labels import Templates, labels_of, read_templates
from clipcond.mini import world
from clipcond.rerank.scorer import Scorer
from clipcond.runtime.torchvision_repair import repair
from clipcond.score.classification import compare_with_truth
from clipcond.score.zero_shot import class_probabilities

CLASSES = tuple(f"{colour} {shape}" for colour in ("red", "green", "blue", "yellow") for shape in world.LAYOUTS)
OWN = Templates(name="own", sentences=("a {}", "a {} in the center", "there is a {} in the center", "one {}"))


def class_pictures(scorer: Scorer, a_class: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Return (N, P) float32 unit vectors of `a_class` pictures of each class, and N numbers of classes."""
    rng, images, truth = random.Random(seed), [], []
    for number, name in enumerate(CLASSES):
        colour, shape = name.split()
        for _ in range(a_class):
            other = world.sample(rng, least=1, most=1).objects[0]
            if other.cell == "center":
                other = world.Object(colour=other.colour, shape=other.shape, cell="top left")
            own = world.Object(colour=colour, shape=shape, cell="center")
            images.append(world.render(world.Scene(rng.choice(list(world.BACKGROUNDS)), (own, other)), rng))
            truth.append(number)
    return scorer.dual.image.embed(images).numpy(), truth


def open_clips(scorer: Scorer, labels: Sequence[str], templates: Templates, at_once: int = 10) -> np.ndarray:
    """(C, P), built by open_clip with the scorer's own model."""
    repair()
    from open_clip import SimpleTokenizer, build_zero_shot_classifier

    filled = [lambda name, sentence=sentence: sentence.replace("{}", name) for sentence in templates.sentences]
    model: Any = scorer.dual.image.model
    tokenizer = SimpleTokenizer(context_length=model.context_length)
    return build_zero_shot_classifier(model, tokenizer, labels, filled, num_classes_per_batch=at_once).T.numpy()


def accuracies(scorer: Scorer, a_class: int) -> None:
    vectors, truth = class_pictures(scorer, a_class, seed=1)
    print(f"\n{len(truth):,} pictures, {len(CLASSES)} classes\n")
    print("| templates | sentences | clipcond | open_clip | largest difference | same answers | calibration error |")
    print("|---|---|---|---|---|---|---|")
    for templates in (read_templates("none"), OWN, *map(read_templates, ("photo", "imagenet7", "imagenet80"))):
        ours = build_classifier(scorer, labels_of(CLASSES, templates)).vectors
        theirs = open_clips(scorer, CLASSES, templates).astype(np.float64)
        found = compare_with_truth(class_probabilities(vectors, ours, head=scorer.dual.head), truth)
        answers = (vectors @ theirs.T).argmax(axis=1)
        same = float(((vectors @ ours.T).argmax(axis=1) == answers).mean())
        print(
            f"| {templates.name} | {len(templates.sentences)} | {found.accuracy:.1%} | {(answers == truth).mean():.1%} "
            f"| {np.abs(ours - theirs).max():.0e} | {same:.1%} | {found.calibration_error:.1%} |"
        )


def times(scorer: Scorer, runs: int, templates: Templates, what: str) -> None:
    labels = labels_of(CLASSES, templates)
    with TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder) / "embeddings.sqlite")
        ways: dict[str, Callable[[], object]] = {
            "clipcond": lambda: build_classifier(Scorer(scorer.dual), labels),
            "clipcond, remembered": lambda: build_classifier(Scorer(scorer.dual), labels, cache=cache),
            "open_clip, 10 classes at a time": lambda: open_clips(scorer, CLASSES, templates),
            "open_clip, 1 class at a time": lambda: open_clips(scorer, CLASSES, templates, 1),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for run in range(runs + 1):
            for name, build in ways.items():
                since = time.perf_counter()
                build()
                if run:  # the first warms up, and fills the cache
                    taken[name].append(time.perf_counter() - since)
        cache.close()
    count = sum(len(label.texts) for label in labels)
    print(f"\nclassifier of {len(labels)} classes × {len(templates.sentences)} sentences = {count:,} texts, {what}\n")
    _table(taken)


def _table(taken: dict[str, list[float]]) -> None:
    print("| | seconds | over clipcond's |")
    print("|---|---|---|")
    for name, own in taken.items():
        ratios = [theirs / mine for theirs, mine in zip(own, taken["clipcond"], strict=True)]
        print(f"| {name} | {_spread(own, '.3f')} | {_spread(ratios, '.2f')} |")


def _spread(numbers: Sequence[float], form: str) -> str:
    return f"{statistics.median(numbers):{form}} [{min(numbers):{form}}, {max(numbers):{form}}]"


def random_scorer(architecture: str) -> Scorer:
    """A model of open_clip's of that shape, with random weights."""
    repair()
    import open_clip

    from clipcond.models.open_clip_build import dual_from_open_clip, open_clip_tokenizer

    torch.manual_seed(0)
    config = open_clip.get_model_config(architecture)
    assert config is not None, f"open_clip knows no {architecture}"
    model = open_clip.create_model(architecture, pretrained=None)
    tokenizer = open_clip_tokenizer(architecture, config, ())
    return Scorer(dual_from_open_clip(architecture, model, config, {}, "cpu", tokenizer=tokenizer))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="mini", help="mini, or another model of open_clip")
    options.add_argument("--a-class", type=int, default=10, help="pictures of each class")
    options.add_argument("--runs", type=int, default=7)
    options.add_argument("--templates", default="imagenet7", help="whose classifier is timed")
    options.add_argument("--architecture", help="time a text encoder of this shape too, with random weights")
    given = options.parse_args()

    print(f"{datetime.date.today()}, python {' '.join(sys.argv)}")
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "open_clip_torch", "numpy"))
    print(f"{packages}, Python {platform.python_version()}, {torch.get_num_threads()} threads")
    scorer = Scorer.load(given.model, device="cpu")
    accuracies(scorer, given.a_class)
    templates = read_templates(given.templates)
    times(scorer, given.runs, templates, given.model)
    if given.architecture:
        times(random_scorer(given.architecture), given.runs, templates, f"{given.architecture} with random weights")


if __name__ == "__main__":
    main()
