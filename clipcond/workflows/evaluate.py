"""A model measured on the user's own pictures and on general ones, beside chance and beside the model from before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipcond.errors import DataError
from clipcond.workflows.evaluation_sets import EvaluationSet, read_set
from clipcond.workflows.events import Events, Note, ignore, task
from clipcond.workflows.model_names import check_model

if TYPE_CHECKING:
    from torch import Tensor

    from clipcond.find.labels import Label
    from clipcond.models.load import DualEncoder
    from clipcond.score.classification import Classified
    from clipcond.score.retrieval import Retrieval

_BATCH = 64
_SIDES = ("image_to_text", "text_to_image")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """model, before: specs with both towers; the second is measured beside the first.

    data: CSV, TSV, JSONL, a WebDataset tar, a glob or folder of tars, or a folder with a folder per class.   retention: such
    a source of general pictures.   templates: a shipped set or a file of sentences with `{}`, around the names of classes.
    labels_file: sentences that describe the classes of `data`.
    """

    model: str
    data: str
    before: str | None = None
    retention: str | None = None
    templates: str = "none"
    labels_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """One model on one set: retrieval where it has captions, classes where it has those."""

    retrieval: Retrieval | None
    classified: Classified | None

    def to_json(self) -> dict[str, Any]:
        """JSON-able: the keys of Retrieval, and `zero_shot`."""
        document: dict[str, Any] = {} if self.retrieval is None else self.retrieval.to_dict()
        if (each := self.classified) is not None:
            document["zero_shot"] = {
                "pictures": each.count, "classes": len(each.recall), "accuracy": each.accuracy, "top5": each.top5,
                "mean_recall": each.mean_recall, "chance": 1 / len(each.recall),
                "calibration_error": each.calibration_error,
            }  # fmt: skip
        return document

    def shares(self) -> Iterator[tuple[str, float, float]]:
        """Yield the name of each measure, its share, and that of chance."""
        if self.retrieval is not None:
            for side in _SIDES:
                for k, share in getattr(self.retrieval, side).items():
                    yield f"{side.replace('_', ' ')} R@{k}", share, self.retrieval.chance[side][k]
        if (each := self.classified) is not None:
            count = len(each.recall)
            yield "zero-shot accuracy", each.accuracy, 1 / count
            yield "zero-shot mean recall", each.mean_recall, 1 / count
            if count > 5:
                yield "zero-shot top 5", each.top5, 5 / count


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRow:
    """One measure of a set: shares from 0 to 1; before is None where no model from before was named."""

    set: str
    measure: str
    before: float | None
    after: float
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """All that was measured: of each set what the model found, and what the model from before did."""

    options: EvaluateOptions
    sets: tuple[EvaluationSet, ...]
    after: tuple[Found, ...]
    before: tuple[Found, ...] | None

    def rows(self) -> Iterator[MeasureRow]:
        """Yield a row for each set and measure."""
        for number, (of, found) in enumerate(zip(self.sets, self.after, strict=True)):
            before = [None] * len([*found.shares()]) if self.before is None else [*self.before[number].shares()]
            for (name, share, chance), was in zip(found.shares(), before, strict=True):
                yield MeasureRow(
                    set=of.name, measure=name, before=None if was is None else was[1], after=share, chance=chance
                )

    def to_json(self) -> dict[str, Any]:
        """JSON-able: the domain's numbers at the top, under `retention` the general ones, under `before` both of the other."""
        document = _document(self.options.model, self.after)
        if self.before is not None:
            document["before"] = _document(str(self.options.before), self.before)
        return document


def _document(model: str, found: tuple[Found, ...]) -> dict[str, Any]:
    domain, *general = found
    document = {"model": model, **domain.to_json()}
    return {**document, "retention": general[0].to_json()} if general else document


def run(options: EvaluateOptions, events: Events = ignore) -> Evaluation:
    """Read the sets, then load each model and measure it on all. Raises ModelError, DataError, ResourceMissing."""
    from clipcond.find.labels import read_templates

    specs = [options.model, *([options.before] if options.before else [])]
    for spec in specs:
        check_model(spec)
    templates = read_templates(options.templates)
    sets = []
    for name, data in (("domain", options.data), ("retention", options.retention)):
        if data is not None:
            with task(events, f"reading {data}"):  # first: it needs no model library
                sets.append(read_set(name, data))
            if sets[-1].note:
                events(Note(sets[-1].note))
    labels = [_labels(of, options, templates) for of in sets]
    after, *before = [_measured(spec, sets, labels, events) for spec in specs]
    return Evaluation(options=options, sets=tuple(sets), after=after, before=before[0] if before else None)


def _labels(of: EvaluationSet, options: EvaluateOptions, templates: Any) -> tuple[Label, ...]:
    """Return the classes with their texts; the file's for the domain, where one is given."""
    from clipcond.find.labels import labels_of, read_labels

    if options.labels_file is None or of.name != "domain":
        return labels_of(of.classes, templates) if of.classes else ()
    if not of.classes:
        raise DataError(f"{options.labels_file} describes classes, and {of.source} has none; add a column label")
    described = read_labels(options.labels_file, templates)
    if missing := sorted({*of.classes} - {label.name for label in described}):
        raise DataError(f"{options.labels_file} does not name the class {missing[0]!r} of {of.source}")
    return described


def _measured(
    spec: str, sets: list[EvaluationSet], labels: list[tuple[Label, ...]], events: Events
) -> tuple[Found, ...]:
    from clipcond.models.load import load_dual
    from clipcond.runtime.devices import device_of

    with task(events, f"loading {spec}"):
        dual = load_dual(spec, device=str(device_of(None)))
    found = []
    for of, own in zip(sets, labels, strict=True):
        with task(events, f"measuring {spec} on {of.source}", len(of.pictures), "pictures") as advance:
            vectors = _embedded(dual, of, advance)
        found.append(
            Found(
                retrieval=_retrieval(dual, of, vectors) if of.pairs is not None else None,
                classified=_classified(dual, of, vectors, own) if own else None,
            )
        )
    return tuple(found)


def _embedded(dual: DualEncoder, of: EvaluationSet, advance: Any) -> Tensor:
    """(N, P) unit rows, float32, of all pictures."""
    import torch
    from torch.nn.functional import normalize

    from clipcond.train.pixels import prepare_all

    parts = []
    for start in range(0, len(of.pictures), _BATCH):
        sources = of.pictures[start : start + _BATCH]
        parts.append(dual.image.embed_pixels(prepare_all(sources, dual.image.preprocess)).float().cpu())
        advance(len(sources))
    return normalize(torch.cat(parts), dim=-1)


def _retrieval(dual: DualEncoder, of: EvaluationSet, vectors: Tensor) -> Retrieval:
    from clipcond.train.evaluate import gallery, score_gallery

    assert of.pairs is not None
    return score_gallery(gallery(of.pairs), lambda rows: vectors[rows], dual.texts.embed)


def _classified(dual: DualEncoder, of: EvaluationSet, vectors: Tensor, labels: tuple[Label, ...]) -> Classified:
    """Compare the zero-shot answers with the classes of the pictures that have one."""
    from clipcond.score.classification import compare_with_truth
    from clipcond.score.zero_shot import classifier

    texts = [text for label in labels for text in label.texts]
    owners = [number for number, label in enumerate(labels) for _ in label.texts]
    weights = classifier(dual.texts.embed(texts).float().cpu().numpy(), owners, len(labels))
    place = {label.name: number for number, label in enumerate(labels)}
    rows = [row for row, label in enumerate(of.labels) if label]
    cosines = vectors[rows].double().numpy() @ weights.T
    return compare_with_truth(dual.head.probabilities(cosines), [place[of.labels[row]] for row in rows])
