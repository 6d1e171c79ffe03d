"""Tuned classes in one safetensors file: learned weights of templates, or learned context vectors, and what they belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clipcond.encode.context import context_rows
from clipcond.errors import ConfigError, DataError, ResourceMissing
from clipcond.files import write_file
from clipcond.find.classify import Classifier
from clipcond.find.labels import Label
from clipcond.rerank.scorer import Scorer
from clipcond.score.zero_shot import combined
from clipcond.wording import first_line, visible

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORMAT, _VERSION = "clipcond tuned classes", "1"
_AXES = {"templates": 1, "shared": 2, "per-class": 3}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Tuned:
    """Values that were learned for some classes, and the model that they were learned with.

    values: of `templates` (T,) weights that sum to 1; of `shared` (n, D) vectors for the words before the name; of
    `per-class` (C, n, D).   sentences: the T templates, or the one that the context stands in.   names: the C classes.
    model: its name.   fingerprint: of its weights.
    """

    kind: str
    values: NDArray[np.float32]
    sentences: tuple[str, ...]
    names: tuple[str, ...]
    model: str
    fingerprint: str


def class_vectors(tuned: Tuned, scorer: Scorer, names: Sequence[str]) -> NDArray[np.float64]:
    """(C, P) float64 unit rows of classes. names: any, except of `per-class`, whose classes are those it was learned for.

    Raises DataError for another model's file, ConfigError for a class that was not learned and for what `context_rows` does.
    """
    if scorer.label_space().model != tuned.fingerprint:
        made, given = visible(tuned.model), visible(scorer.dual.name)
        raise DataError(f"the tuned classes were made by {made}, with other weights than {given}; name its model")
    if tuned.kind == "templates":
        texts = [sentence.replace("{}", name) for name in names for sentence in tuned.sentences]
        vectors = np.array([each.vector for each in scorer.texts(texts)]).reshape(len(names), len(tuned.sentences), -1)
        return np.array([combined(texts, tuned.values) for texts in vectors])
    rows = context_rows(scorer.dual.texts, tuned.sentences[0], names)
    context = tuned.values
    if context.shape[-2:] != tuple(rows.start.shape):
        raise DataError(
            f"the tuned context has the axes {context.shape[-2:]}; "
            f"expected {tuple(rows.start.shape)} for {visible(tuned.sentences[0])!r}"
        )
    if tuned.kind == "per-class":
        check_names(tuned, names)
        context = context[[tuned.names.index(name) for name in names]]
    return rows.vectors(context)


def check_names(tuned: Tuned, names: Sequence[str]) -> None:
    """Raise ConfigError for a class that `per-class` context was not learned for."""
    if tuned.kind == "per-class" and (unknown := [name for name in names if name not in tuned.names]):
        known = ", ".join(tuned.names[:5])
        raise ConfigError(
            f"{visible(unknown[0])!r} was not learned; context per class knows {visible(known)}"
            f"{' and others' if len(tuned.names) > 5 else ''}; shared context takes any class"
        )


def tuned_classifier(tuned: Tuned, scorer: Scorer, names: Sequence[str]) -> Classifier:
    """The classifier of tuned classes. Raises what `class_vectors` raises."""
    labels = tuple(Label(name=name, texts=(name,)) for name in names)
    return Classifier(labels=labels, vectors=class_vectors(tuned, scorer, names), head=scorer.dual.head)


def save_tuned(path: Path, tuned: Tuned, *, overwrite: bool = False) -> None:
    """Write the file whole. Raises OutputExists."""
    metadata = {
        "format": _FORMAT, "version": _VERSION, "kind": tuned.kind, "sentences": json.dumps(tuned.sentences),
        "names": json.dumps(tuned.names), "model": tuned.model, "fingerprint": tuned.fingerprint,
    }  # fmt: skip
    name = "weights" if tuned.kind == "templates" else "context"
    write_file(path, save({name: np.ascontiguousarray(tuned.values, dtype=np.float32)}, metadata), overwrite=overwrite)


def read_tuned(path: Path) -> Tuned:
    """Read what `save_tuned` wrote. Raises ResourceMissing, and DataError for any other file."""
    if not path.is_file():
        raise ResourceMissing(f"no tuned classes at {path}; expected a file that clipcond tune made")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 - no mapping
        if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
            raise DataError(f"{path} holds no tuned classes; expected a file that clipcond tune made")
        sentences, names = tuple(json.loads(metadata["sentences"])), tuple(json.loads(metadata["names"]))
        kind, (values,) = metadata["kind"], tensors
        model, fingerprint = metadata["model"], metadata["fingerprint"]
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no file of tuned classes: {first_line(error) or type(error).__name__}") from error
    lengths = {"templates": len(sentences), "per-class": len(names)}
    if _AXES.get(kind) != values.ndim or len(values) != lengths.get(kind, len(values)) or not names or not sentences:
        raise DataError(f"{path} is damaged: {kind} with values of the axes {tuple(values.shape)}")
    if not np.isfinite(values).all():
        raise DataError(f"{path} holds a number that is not finite")
    return Tuned(
        kind=kind, values=values.astype(np.float32), sentences=sentences, names=names, model=model, fingerprint=fingerprint
    )  # fmt: skip


def save_inversion(path: Path, tuned: Tuned, *, overwrite: bool = False) -> None:
    """Write shared context as a textual inversion, known by the file's name: one tensor (n, D) under it, as diffusers does.

    Raises ConfigError for anything but shared context.
    """
    if tuned.kind != "shared":
        raise ConfigError(f"{tuned.kind} is no textual inversion; only shared context is one")
    write_file(path, save({path.stem: np.ascontiguousarray(tuned.values, dtype=np.float32)}), overwrite=overwrite)
