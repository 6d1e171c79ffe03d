"""A linear probe on pictures with known classes, against zero-shot on the same pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import DataError, OptionsError
from clipcond.wording import visible
from clipcond.workflows import gallery, labelled
from clipcond.workflows.events import Events, Note, ignore, task
from clipcond.workflows.gallery import GalleryOptions

if TYPE_CHECKING:
    from clipcond.find.probe import ProbeReport

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
    train_pictures, test_pictures = labelled.find(options.train), labelled.find(options.test)
    labelled.say_shared(train_pictures, test_pictures, events)
    names = sorted(set(train_pictures.values()) | set(test_pictures.values()))
    labels = labelled.classes(names, options.labels_file, options.templates)
    if len(labels) < 2:
        raise DataError(
            f"all pictures of {options.train} and {options.test} are of one class, {visible(labels[0].name)}; expected two "
            "or more: a folder for each, or a table of image and label"
        )

    from clipcond.find.probe import probe

    scorer = gallery.load_scorer(options.model, events, tuple(text for label in labels for text in label.texts))
    names = [label.name for label in labels]
    of = GalleryOptions(
        images=(str(options.train),), model=options.model, batch_size=options.batch_size, cache=options.cache
    )
    train = labelled.embed(train_pictures, names, scorer, of, events)
    test = labelled.embed(test_pictures, names, scorer, replace(of, images=(str(options.test),)), events)
    most = train.most_of_a_class
    few = [count for count in options.shots if count <= most]
    if len(few) < len(options.shots):
        events(Note(f"no class has more than {most} examples; {max(options.shots)} shots and their like are left out"))
    zero_shot = gallery.text_classifier(scorer, labels, cache=options.cache)
    with task(events, "fitting", len(few) + 1, "sets") as advance:
        report = probe(
            train, test, zero_shot.vectors, logit_scale=zero_shot.head.scale, shots=(*few, None), draws=options.draws,
            seed=options.seed, on_progress=advance,
        )  # fmt: skip
    return report
