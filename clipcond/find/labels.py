"""Classes in words: labels from a list or a file, each with the texts that stand for it, and the templates that make them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipcond.errors import DataError, ResourceMissing
from clipcond.rerank.tables import column_of, maybe_column_of, read_lines, read_table
from clipcond.resources import bundled
from clipcond.wording import first_line, visible

TEMPLATE_SETS = ("none", "photo", "satellite", "art", "text", "imagenet7", "imagenet80")
LABEL_COLUMNS = ("label", "class", "category", "name", "answer")
DESCRIPTION_COLUMNS = ("description", "text", "prompt", "caption", "sentence")
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A class. texts: the sentences that stand for it, one or more, each whole."""

    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Templates:
    """Sentences with `{}` where the label goes. name: of the set or file they are from."""

    name: str
    sentences: tuple[str, ...]

    def filled(self, label: str) -> tuple[str, ...]:
        """The sentences with a label in place, which may hold braces itself."""
        return tuple(sentence.replace("{}", label) for sentence in self.sentences)


def read_templates(name: str) -> Templates:
    """Return a shipped set of templates, or those of a text file, one a line.

    Raises ResourceMissing for a name that is neither, DataError for a line without `{}`.
    """
    path = Path(name)
    if name in TEMPLATE_SETS:
        path = bundled("prompts", f"templates/{name}.txt")
    elif not path.is_file():
        raise ResourceMissing(f"no templates {visible(name)!r}; expected {', '.join(TEMPLATE_SETS)} or a text file")
    sentences = read_lines(path, "templates")
    for sentence in sentences:
        if "{}" not in sentence:
            raise DataError(f"{path}: {visible(sentence)!r} has no {{}} where the label goes")
    return Templates(name=name, sentences=sentences)


def labels_of(names: Iterable[str], templates: Templates) -> tuple[Label, ...]:
    """Return a class for each name, its texts from the templates. Raises DataError for fewer than one, and for two alike."""
    return _checked([Label(name=name, texts=templates.filled(name)) for name in names], "the labels")


def read_labels(path: Path, templates: Templates) -> tuple[Label, ...]:
    """Read classes by the file's ending.

    `.json` holds a list of names, or an object of names with a sentence or several; `.csv`, `.tsv` and `.jsonl` have a
    column label, and a column description where labels are described (several rows of a label are several sentences); all
    else is a name a line. A described label stands for its sentences as they are; the others go through the templates.
    Raises DataError, naming the file.
    """
    if path.suffix == ".json":
        described = _json_labels(path)
    elif path.suffix in _TABLES:
        described = _table_labels(path)
    else:
        described = dict.fromkeys(read_lines(path, "labels"), ())
    found = [Label(name=name, texts=tuple(texts) or templates.filled(name)) for name, texts in described.items()]
    return _checked(found, str(path))


def _json_labels(path: Path) -> dict[str, Sequence[str]]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({first_line(error)})") from error
    if isinstance(found, list) and all(isinstance(name, str) for name in found):
        if len(set(found)) < len(found):
            raise DataError(f"{path}: the label {visible(max(found, key=found.count))!r} is there twice")
        return {name.strip(): () for name in found}
    if not isinstance(found, dict) or not found:
        raise DataError(f'{path}: expected a list of labels, or {{"label": ["a sentence", …]}}')
    return {name.strip(): _sentences(path, name, texts) for name, texts in found.items()}


def _sentences(path: Path, name: str, given: object) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{path}, {visible(name)!r}: expected a sentence, or a list of them")
    return tuple(texts)


def _table_labels(path: Path) -> dict[str, Sequence[str]]:
    rows = read_table(path)
    name = column_of(path, rows, LABEL_COLUMNS, "label")
    description = maybe_column_of(rows, DESCRIPTION_COLUMNS)
    described: dict[str, list[str]] = {}
    for row in rows:
        texts = described.setdefault(row.get(name, "").strip(), [])
        if description is not None and row.get(description, "").strip():
            texts.append(row[description].strip())
    return {name: tuple(dict.fromkeys(texts)) for name, texts in described.items()}


def _checked(labels: Sequence[Label], source: str) -> tuple[Label, ...]:
    names = [label.name for label in labels]
    if not names:
        raise DataError(f"{source}: there is no label; expected two or more")
    if "" in names:
        raise DataError(f"{source}: label {names.index('') + 1} is empty")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{source}: the label {visible(twice)!r} is there twice")
    return tuple(labels)
