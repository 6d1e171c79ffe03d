"""Pictures with known classes, from a folder with a folder for each class or from a table, and the classes in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import DataError, ResourceMissing
from clipcond.workflows import gallery
from clipcond.workflows.events import Events, Note
from clipcond.workflows.gallery import GalleryOptions

if TYPE_CHECKING:
    from clipcond.find.labels import Label
    from clipcond.find.probe import Examples
    from clipcond.rerank.scorer import Scorer


def find(source: Path) -> dict[Path, str]:
    """Return the label of each picture of a source. Raises ResourceMissing and DataError."""
    from clipcond.find.truth import labelled_pictures, labels_by_folder
    from clipcond.images.find import find_pictures

    if source.is_dir():
        paths = find_pictures([source], recursive=True).paths
        if not paths:
            raise DataError(f"no pictures in the folders of {source}; expected a folder for each class")
        return labels_by_folder(paths)
    if not source.is_file():
        raise ResourceMissing(f"there is no {source}; expected a folder of folders, or a table with image and label")
    return labelled_pictures(source)


def say_shared(train: dict[Path, str], test: dict[Path, str], events: Events) -> None:
    """Note that pictures are trained on and tested with."""
    if both := {path.resolve() for path in train} & {path.resolve() for path in test}:
        events(Note(f"{len(both):,} of the {len(test):,} test pictures are trained on; accuracy flatters"))


def classes(names: Sequence[str], labels_file: Path | None, templates: str) -> tuple[Label, ...]:
    """Return the labels of classes: of a file that names them all, or the names in templates. Raises DataError."""
    from clipcond.find.labels import labels_of, read_labels, read_templates

    sentences = read_templates(templates)
    if labels_file is None:
        return labels_of(names, sentences)
    labels = read_labels(labels_file, sentences)
    if missing := sorted(set(names) - {label.name for label in labels}):
        raise DataError(f"{labels_file} does not name the class {missing[0]!r}")
    return labels


def embed(
    pictures: dict[Path, str], names: Sequence[str], scorer: Scorer, options: GalleryOptions, events: Events
) -> Examples:
    """Embed pictures, with a note for each that cannot be read. names: the classes, in the order of their numbers."""
    from clipcond.find.probe import examples
    from clipcond.find.truth import numbered

    found = gallery.embed(tuple(pictures), scorer, options, events)
    for each in found.unread:
        events(Note(f"{each.path} is left out: {each.error}"))
    rows, numbers = numbered(found.paths, pictures, names)
    return examples(found.only(rows).vectors, numbers)
