"""Zero-shot classes of picture files: labels in words, answers, and their measure where the truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import OptionsError, ResourceMissing
from clipcond.workflows import gallery
from clipcond.workflows.events import Events, Note, ignore
from clipcond.workflows.gallery import GalleryOptions

if TYPE_CHECKING:
    from clipcond.find.classify import Classification, TemplateGain
    from clipcond.find.gallery import Gallery
    from clipcond.find.labels import Label, Templates
    from clipcond.find.tuned import Tuned
    from clipcond.score.classification import Classified

FOLDERS = "folders"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyOptions:
    """Pictures, classes, and what to say of each picture.

    tuned: a file that `tune` made, for its own classes or, unless its context is per class, for those of `labels`.
    labels: names.   labels_file: names, or names with sentences that describe them.   templates: a shipped set or a file
    of sentences with `{}`.   top: labels a picture.   none_below: the least probability of a label.
    truth: `folders`, or a table of pictures and their labels.   try_templates: measure each template, and choose greedily.
    Raises OptionsError for options that contradict one another or are out of range.
    """

    gallery: GalleryOptions
    labels: tuple[str, ...] = ()
    labels_file: Path | None = None
    templates: str = "none"
    top: int = 1
    none_below: float = 0.0
    truth: str | None = None
    try_templates: bool = False
    tuned: Path | None = None

    def __post_init__(self) -> None:
        if self.tuned is not None:
            self._check_tuned()
        elif bool(self.labels) == (self.labels_file is not None):
            raise OptionsError("give the classes with --labels a,b,c or with --labels-file FILE, one of the two")
        if self.top < 1:
            raise OptionsError(f"--top is {self.top}; expected 1 or more")
        if not 0 <= self.none_below <= 1:
            raise OptionsError(f"--none-below is {self.none_below:g}; expected a probability from 0 to 1")
        if self.try_templates and self.truth is None:
            raise OptionsError("--try-templates needs the right labels; give them with --truth folders or --truth FILE")

    def _check_tuned(self) -> None:
        if self.labels_file is not None:
            raise OptionsError(
                "--tuned knows classes by name alone; give them with --labels a,b,c, or leave --labels-file out"
            )
        if self.templates != "none" or self.try_templates:
            flag = "--try-templates" if self.try_templates else "--templates"
            raise OptionsError(f"--tuned brings its own sentences; leave {flag} out")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ClassifyResult:
    """The answers, and their measure where the truth is known.

    measured: over `compared` of the pictures.   gains, selected: with `try_templates`; selected is the greedy choice and
    its accuracy on the same pictures.
    """

    classification: Classification
    templates: str
    model: str
    measured: Classified | None = None
    gains: tuple[TemplateGain, ...] = ()
    selected: tuple[str, ...] = ()
    selected_accuracy: float | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in their order."""
        return tuple(label.name for label in self.classification.classifier.labels)

    def measure_to_json(self) -> dict[str, object]:
        """The numbers of `measured` and of the templates, JSON-able."""
        document: dict[str, object] = {}
        if (found := self.measured) is not None:
            recall = {
                name: None if value != value else float(value)
                for name, value in zip(self.labels, found.recall, strict=True)
            }
            document |= {
                "pictures": found.count, "accuracy": found.accuracy, "top5": found.top5, "mean_recall": found.mean_recall,
                "recall": recall, "confidence": found.confidence, "calibration_error": found.calibration_error,
                "confusion": found.confusion.tolist(),
            }  # fmt: skip
        if self.gains:
            document["templates"] = [gain.to_json() for gain in self.gains]
            document["selected_templates"] = list(self.selected)
            document["selected_accuracy"] = self.selected_accuracy
        return document


def run(options: ClassifyOptions, events: Events = ignore) -> ClassifyResult:
    """Read the classes and find the pictures, then load the model, classify and measure.

    Raises OptionsError, DataError and ResourceMissing before a model is loaded, ImageError where no picture can be read.
    """
    from clipcond.find.labels import Templates, read_templates

    tuned = _tuned(options)
    templates = (
        read_templates(options.templates) if tuned is None else Templates(name="tuned", sentences=tuned.sentences)
    )
    labels = _labels(options, templates, tuned)
    paths = gallery.find(options.gallery, events)
    truth = _truth(options, paths)
    if truth is not None:
        _check_truth(paths, truth, labels)

    from clipcond.find.classify import classify
    from clipcond.find.tuned import tuned_classifier

    scorer = gallery.load_scorer(options.gallery.model, events, tuple(text for label in labels for text in label.texts))
    pictures = gallery.embed(paths, scorer, options.gallery, events)
    if tuned is None:
        of = gallery.text_classifier(scorer, labels, cache=options.gallery.cache)
    else:
        of = tuned_classifier(tuned, scorer, [label.name for label in labels])
    found = classify(pictures, of, top=options.top, none_below=options.none_below)
    if truth is None:
        return ClassifyResult(classification=found, templates=templates.name, model=options.gallery.model)
    return _measured(options, found, pictures, labels, templates, truth, events)


def _tuned(options: ClassifyOptions) -> Tuned | None:
    """The tuned classes, which name all of --labels that they must. Raises ResourceMissing, DataError and ConfigError."""
    if options.tuned is None:
        return None
    from clipcond.find.tuned import check_names, read_tuned

    tuned = read_tuned(options.tuned)
    check_names(tuned, options.labels)
    return tuned


def _labels(options: ClassifyOptions, templates: Templates, tuned: Tuned | None) -> tuple[Label, ...]:
    from clipcond.find.labels import labels_of, read_labels

    if tuned is not None:
        return labels_of(options.labels or tuned.names, templates)
    if options.labels_file is None:
        return labels_of(options.labels, templates)
    if not options.labels_file.is_file():
        raise ResourceMissing(f"no labels at {options.labels_file}")
    return read_labels(options.labels_file, templates)


def _truth(options: ClassifyOptions, paths: tuple[Path, ...]) -> dict[Path, str] | None:
    from clipcond.find.truth import labels_by_folder, read_truth, truth_of

    if options.truth is None:
        return None
    if options.truth == FOLDERS:
        return labels_by_folder(paths)
    table = Path(options.truth)
    if not table.is_file():
        raise ResourceMissing(f"no table of right labels at {table}; expected a file, or {FOLDERS}")
    return truth_of(paths, read_truth(table))


def _check_truth(paths: tuple[Path, ...], truth: dict[Path, str], labels: tuple[Label, ...]) -> None:
    from clipcond.find.truth import numbered

    numbered(paths, truth, [label.name for label in labels])


def _measured(
    options: ClassifyOptions,
    found: Classification,
    pictures: Gallery,
    labels: tuple[Label, ...],
    templates: Templates,
    truth: dict[Path, str],
    events: Events,
) -> ClassifyResult:
    """Compare with the truth, and try the templates if that was asked for."""
    from clipcond.find.truth import numbered
    from clipcond.score.classification import compare_with_truth

    names = [label.name for label in labels]
    rows, right = numbered(pictures.paths, truth, names)
    if len(rows) < len(pictures.paths):
        events(Note(f"{len(pictures.paths) - len(rows)} pictures have no right label and are not measured"))
    measured = compare_with_truth(found.probabilities[rows], right)
    result = ClassifyResult(
        classification=found, templates=templates.name, model=options.gallery.model, measured=measured
    )
    if not options.try_templates:
        return result
    from clipcond.find.classify import TemplateBench

    bench = TemplateBench(pictures.only(rows), names, templates.sentences, right)
    selected, selected_accuracy = bench.select()
    return replace(result, gains=bench.gains(), selected=selected, selected_accuracy=selected_accuracy)
