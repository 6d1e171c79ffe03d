"""Described things found in pictures: labels and a model in, boxes and heat maps out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clipcond.errors import ImageError, ModelError, OptionsError, ResourceMissing
from clipcond.files import check_output
from clipcond.workflows import gallery
from clipcond.workflows.events import Events, Note, ignore, task
from clipcond.workflows.gallery import GalleryOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clipcond.find.detect import DetectedPicture, Eye
    from clipcond.find.gallery import Unread
    from clipcond.find.heat_maps import HeatMaps
    from clipcond.find.labels import Label
    from clipcond.rerank.scorer import Scorer

Method = Literal["auto", "patches", "windows"]
# of mini's patches: benchmarks/detect.py
_THERE = "--min-score 0.57 keeps 94 % of what is there and 13 % of what is not"


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectOptions:
    """Pictures, labels, and how to look.

    labels: names.   labels_file: names, or names with sentences that describe them.   templates: a shipped set or a file of
    sentences with `{}`.   method: `patches` by a dual encoder's patches, `windows` by parts of the picture looked at alone;
    `auto` is patches where there are any.   most: places of a label in a picture.   min_score: below it there is none.
    sure: leave a label out that has only places which another label fits better.
    html, csv: files to write, which `run` leaves to the caller and checks for.
    Raises OptionsError for options that contradict one another or are out of range.
    """

    gallery: GalleryOptions
    labels: tuple[str, ...] = ()
    labels_file: Path | None = None
    templates: str = "none"
    method: Method = "auto"
    most: int = 5
    min_score: float | None = None
    sure: bool = False
    html: Path | None = None
    csv: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if bool(self.labels) == (self.labels_file is not None):
            raise OptionsError("say what to find with --labels a,b,c or with --labels-file FILE, one of the two")
        if self.most < 1:
            raise OptionsError(f"--most is {self.most}; expected 1 or more")
        if self.min_score is not None and not -1 <= self.min_score <= 1:
            raise OptionsError(f"--min-score is {self.min_score:g}; expected a score from -1 to 1")
        if self.html is not None and self.html == self.csv:
            raise OptionsError("--html and --csv name the same file")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DetectResult:
    """The places found in each picture. method: `patches`, `windows`, or `boxes` of a detection model."""

    labels: tuple[str, ...]
    model: str
    method: str
    pictures: tuple[DetectedPicture, ...]
    unread: tuple[Unread, ...]


def run(options: DetectOptions, events: Events = ignore) -> DetectResult:
    """Read the labels and find the pictures, then load the model and look.

    Raises OptionsError, DataError, OutputExists and ResourceMissing before a model is loaded, ModelError for one that cannot
    be loaded or does not tell places apart, ImageError where no picture can be read.
    """
    for file in (options.html, options.csv):
        if file is not None:
            check_output(file, "name another file, or pass --overwrite", overwrite=options.overwrite)
    labels = _labels(options)
    paths = gallery.find(options.gallery, events)
    eye, method = _eye(options, labels, events)
    from clipcond.find.detect import detect

    with task(events, "looking", len(paths), "pictures") as advance:
        pictures, unread = detect(
            paths, eye, labels, most=options.most, min_score=options.min_score, sure=options.sure,
            keep_heat=options.html is not None, on_progress=advance,
        )  # fmt: skip
    if not pictures:
        raise ImageError(f"none of {len(paths)} pictures could be read; the first: {unread[0].error}")
    names = tuple(label.name for label in labels)
    return DetectResult(
        labels=names, model=options.gallery.model, method=method, pictures=pictures, unread=unread
    )  # fmt: skip


def _labels(options: DetectOptions) -> tuple[Label, ...]:
    from clipcond.find.labels import labels_of, read_labels, read_templates

    templates = read_templates(options.templates)
    if options.labels_file is None:
        return labels_of(options.labels, templates)
    if not options.labels_file.is_file():
        raise ResourceMissing(f"no labels at {options.labels_file}")
    return read_labels(options.labels_file, templates)


def _eye(options: DetectOptions, labels: tuple[Label, ...], events: Events) -> tuple[Eye, str]:
    from clipcond.models.detection import names_detector

    model = options.gallery.model
    if names_detector(model):
        return _detector_eye(options, labels, events)
    from clipcond.find.classify import build_classifier
    from clipcond.find.detect import HeatEye

    scorer = gallery.load_scorer(model, events, tuple(text for label in labels for text in label.texts))
    vectors = build_classifier(scorer, labels).vectors
    maps, method = _maps(options, scorer, vectors, events)
    if options.min_score is None and not options.sure:
        way = (
            f"{_THERE} (measured on scenes)" if (model, method) == ("mini", "patches") else "see --min-score and --sure"
        )
        events(Note(f"{model} says of each label where it would be, there or not; {way}"))
    return HeatEye(maps), method


def _detector_eye(options: DetectOptions, labels: tuple[Label, ...], events: Events) -> tuple[Eye, str]:
    """Raises OptionsError for a method, of which a detection model has its own."""
    model = options.gallery.model
    if options.method != "auto":
        raise OptionsError(f"{model} is a detection model, which looks in its own way; leave out --method")
    from clipcond.find.detect import detector_eye

    detector = gallery.load_detection_model(model, events)
    return detector_eye(detector, labels), "boxes"


def _maps(options: DetectOptions, scorer: Scorer, vectors: NDArray[np.float64], events: Events) -> tuple[HeatMaps, str]:
    """The maps of a dual encoder, and their method."""
    from clipcond.encode.patch_tower import PatchTower
    from clipcond.find.heat_maps import PatchMaps, WindowMaps

    tower, rows = scorer.dual.image, options.gallery.batch_size
    if options.method != "windows":
        try:
            patches = PatchTower(options.gallery.model, tower)
        except ModelError:
            if options.method == "patches":
                raise
            events(Note(f"{options.gallery.model} has no patches that can be read one by one; looking at windows"))
        else:
            return PatchMaps(patches, tower, vectors, rows=rows), "patches"
    return WindowMaps(tower, vectors, rows), "windows"
