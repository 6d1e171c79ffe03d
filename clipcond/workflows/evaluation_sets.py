"""The sets that a model is measured on: pictures with captions, with classes, or with both."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import DataError
from clipcond.images.find import find_pictures
from clipcond.images.image_source import ImageSource

if TYPE_CHECKING:
    from clipcond.train.data import Pairs

CLASS_COLUMNS = ("label", "class", "category")
_TABLES = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationSet:
    """N pictures of a source. pairs: with their captions, None without any.   labels: the class of each, "" without one.
    note: what of it is left out.
    """

    name: str
    source: str
    pictures: tuple[ImageSource, ...]
    pairs: Pairs | None
    labels: tuple[str, ...] = ()
    note: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the alphabet."""
        return tuple(sorted({label for label in self.labels if label}))


def read_set(name: str, data: str) -> EvaluationSet:
    """Read a source of pairs, whose table may have a column label, class or category; or a folder with a folder per class.

    Classes that will not do, one alone or two of a picture, are left out with a note where there are captions. Raises
    DataError for a source with neither, and for one picture alone.
    """
    path = Path(data)
    found = _from_folders(name, path) if _is_folder_of_classes(path) else _from_source(name, data)
    if len(found.pictures) < 2:
        raise DataError(f"{data} holds {len(found.pictures)} image; retrieval and classes need 2 or more")
    if len(found.classes) == 1:
        raise DataError(f"{data}: every picture is of the class {found.classes[0]!r}; zero-shot needs 2 or more")
    return found


def _from_source(name: str, data: str) -> EvaluationSet:
    from clipcond.train.data import read_pairs

    columns = _columns(Path(data))
    label = next((columns[each] for each in CLASS_COLUMNS if each in columns), None)
    if label is None:
        pairs = read_pairs(data)
        return EvaluationSet(name=name, source=data, pictures=tuple(pairs.images), pairs=pairs)
    return _from_labelled_table(name, Path(data), columns, label)


def _from_labelled_table(name: str, table: Path, columns: dict[str, str], label: str) -> EvaluationSet:
    from clipcond.rerank.tables import read_table
    from clipcond.train.data import read_pairs
    from clipcond.train.rows import CAPTION_COLUMNS, IMAGE_COLUMNS

    image = next((columns[each] for each in IMAGE_COLUMNS if each in columns), None)
    if image is None:
        raise DataError(f"{table} has no column for the image; name one {IMAGE_COLUMNS[0]}")
    places: dict[str, Path] = {}
    said: dict[str, str] = {}
    problem = ""
    for row in read_table(table):
        place = table.parent / row.get(image, "")
        key, own = _key(place), row.get(label, "")
        places.setdefault(key, place)
        if said.setdefault(key, own) != own:
            problem = problem or f"{row.get(image)} is of two classes, {said[key]!r} and {own!r}"
    if not problem and len({*said.values()} - {""}) == 1:
        problem = f"every picture is of the class {next(iter({*said.values()} - {''}))!r}; zero-shot needs 2 or more"
    captions = any(each in columns for each in CAPTION_COLUMNS)
    if problem and not captions:
        raise DataError(f"{table}: {problem}")
    pairs = read_pairs(table) if captions else None
    pictures = tuple(pairs.images) if pairs is not None else tuple(map(ImageSource, places.values()))
    return EvaluationSet(
        name=name, source=str(table), pictures=pictures, pairs=pairs,
        labels=() if problem else tuple(said.get(_key(each.path), "") for each in pictures),
        note=f"{table}: {problem}; its classes are left out" if problem else "",
    )  # fmt: skip


def _from_folders(name: str, folder: Path) -> EvaluationSet:
    paths = find_pictures([folder], recursive=True).paths
    inside = [path for path in paths if path.parent != folder]
    return EvaluationSet(
        name=name, source=str(folder), pictures=tuple(map(ImageSource, inside)), pairs=None,
        labels=tuple(path.relative_to(folder).parts[0] for path in inside),
    )  # fmt: skip


def _is_folder_of_classes(path: Path) -> bool:
    """True for a folder that holds no table and no tars of its own, but pictures in folders."""
    if not path.is_dir() or any(path.glob("metadata.*")) or any(path.glob("*.tar*")):
        return False
    return any(found.parent != path for found in find_pictures([path], recursive=True).paths)


def _columns(table: Path) -> dict[str, str]:
    """Return the columns of a table's first line by their names in small letters; none of what is no table."""
    if table.suffix not in _TABLES or not table.is_file():
        return {}
    with table.open(encoding="utf-8-sig", errors="replace") as file:
        head = file.readline(1 << 20)
    if table.suffix == ".jsonl":
        try:
            record = json.loads(head)
        except ValueError:
            return {}
        names = [*record] if isinstance(record, dict) else []
    else:
        separator = max(",\t;|", key=head.count)
        names = [name.strip() for name in next(csv.reader([head], delimiter=separator), [])]
    return {name.casefold(): name for name in names}


def _key(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  (./0.jpg is 0.jpg; links are kept)
