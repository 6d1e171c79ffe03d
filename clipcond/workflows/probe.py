"""A linear probe on pictures with known classes, against zero-shot on the same pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import OptionsError, ResourceMissing
from clipcond.workflows import gallery
from clipcond.workflows.events import Events, Note, ignore, task
from clipcond.workflows.gallery import GalleryOptions

if TYPE_CHECKING:
    from clipcond.find.labels import Label
    from clipcond.find.probe import Examples, ProbeReport
    from clipcond.rerank.scorer import Scorer

DEFAULT_SHOTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """Two sources of pictures with classes: a folder with a folder for each class, or a table of image and label.

    labels_file: sentences for the classes; left out, their names.   shots: examples a class, each drawn `draws` times.
    Raises OptionsError for numbers below 1.
    """

    train: Path
    test: Path
    model: str = "mini"
    labels_file: Path | None = None
    templates: str = "none"
    shots: tuple[int, ...] = DEFAULT_SHOTS
    draws: int = 3
    seed: int = 0
    batch_size: int = 32
    cache: bool = True

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 1:
            raise OptionsError("--shots needs whole numbers from 1, with commas between: 1,2,4,8,16")
        if self.draws < 1:
            raise OptionsError(f"--draws is {self.draws}; expected 1 or more")


def run(options: ProbeOptions, events: Events = ignore) -> ProbeReport:
    """Read the pictures and classes, load the model, embed, fit and compare. Raises DataError, ImageError and ModelError."""
    train_paths, train_labels = _labelled(options.train)
    test_paths, test_labels = _labelled(options.test)
    if both := {path.resolve() for path in train_paths} & {path.resolve() for path in test_paths}:
        events(Note(f"{len(both):,} of the {len(test_paths):,} test pictures are trained on; accuracy flatters"))
    labels = _classes(options, sorted(set(train_labels.values()) | set(test_labels.values())))

    from clipcond.find.probe import probe

    scorer = gallery.load_scorer(options.model, events, tuple(text for label in labels for text in label.texts))
    names = [label.name for label in labels]
    train = _examples(train_paths, train_labels, names, scorer, options, events)
    test = _examples(test_paths, test_labels, names, scorer, options, events)
    most = train.most_of_a_class
    few = [count for count in options.shots if count <= most]
    if len(few) < len(options.shots):
        events(Note(f"no class has more than {most} examples; {max(options.shots)} shots and their like are left out"))
    of = gallery.text_classifier(scorer, labels, cache=options.cache)
    with task(events, "fitting", len(few) + 1, "sets") as advance:
        report = probe(
            train, test, of.vectors, logit_scale=of.head.scale, shots=(*few, None), draws=options.draws,
            seed=options.seed, on_progress=advance,
        )  # fmt: skip
    return report


def _labelled(source: Path) -> tuple[tuple[Path, ...], dict[Path, str]]:
    """Return the pictures of a source and the label of each. Raises ResourceMissing and DataError."""
    from clipcond.errors import DataError
    from clipcond.find.truth import labelled_pictures, labels_by_folder
    from clipcond.images.find import find_pictures

    if source.is_dir():
        paths = find_pictures([source], recursive=True).paths
        if not paths:
            raise DataError(f"no pictures in the folders of {source}; expected a folder for each class")
        return paths, labels_by_folder(paths)
    if not source.is_file():
        raise ResourceMissing(f"there is no {source}; expected a folder of folders, or a table with image and label")
    found = labelled_pictures(source)
    return tuple(found), found


def _classes(options: ProbeOptions, names: list[str]) -> tuple[Label, ...]:
    from clipcond.errors import DataError
    from clipcond.find.labels import labels_of, read_labels, read_templates

    templates = read_templates(options.templates)
    if options.labels_file is None:
        return labels_of(names, templates)
    labels = read_labels(options.labels_file, templates)
    if missing := sorted(set(names) - {label.name for label in labels}):
        raise DataError(f"{options.labels_file} does not name the class {missing[0]!r}")
    return labels


def _examples(
    paths: tuple[Path, ...],
    labels: dict[Path, str],
    names: list[str],
    scorer: Scorer,
    options: ProbeOptions,
    events: Events,
) -> Examples:
    from clipcond.find.probe import examples
    from clipcond.find.truth import numbered

    of = GalleryOptions(
        images=(str(options.train),), model=options.model, batch_size=options.batch_size, cache=options.cache
    )
    pictures = gallery.embed(paths, scorer, of, events)
    for each in pictures.unread:
        events(Note(f"{each.path} is left out: {each.error}"))
    rows, classes = numbered(pictures.paths, labels, names)
    return examples(pictures.only(rows).vectors, classes)
