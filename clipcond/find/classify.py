"""Zero-shot classes: pictures against labels in words, with an ensemble of texts for each label (Radford et al. 2021, 3.1.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipcond.encode.logits import LogitHead
from clipcond.find.gallery import Gallery, Unread
from clipcond.find.labels import Label
from clipcond.rerank.scorer import Scorer
from clipcond.score.classification import accuracy
from clipcond.score.zero_shot import class_cosines, class_probabilities, classifier, ensemble, top_k

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.encode.embedding_cache import EmbeddingCache


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Classifier:
    """Labels as vectors: (C, P) float64 unit rows, and how the model's cosines become probabilities."""

    labels: tuple[Label, ...]
    vectors: NDArray[np.float64]
    head: LogitHead

    def probabilities(self, pictures: Gallery) -> NDArray[np.float64]:
        """(N, C) float64: among the labels, or of a SigLIP each label's own."""
        return class_probabilities(pictures.vectors, self.vectors, head=self.head)

    def cosines(self, pictures: Gallery) -> NDArray[np.float64]:
        """(N, C) float64, the cosine of each picture and label."""
        return class_cosines(pictures.vectors, self.vectors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A label with its probability among all labels, and the cosine of the picture and the label's vector."""

    label: str
    probability: float
    cosine: float

    def to_json(self) -> dict[str, object]:
        return {"label": self.label, "probability": round(self.probability, 6), "cosine": round(self.cosine, 6)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifiedPicture:
    """The best labels of a picture, best first. label: the first, or None where no label is likely enough."""

    path: Path
    label: str | None
    answers: tuple[Answer, ...]

    def to_json(self) -> dict[str, object]:
        """The row of this picture."""
        return {"path": str(self.path), "label": self.label, "answers": [each.to_json() for each in self.answers]}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Classification:
    """Every picture's labels. probabilities: (N, C) float64, of pictures that could be read and all labels."""

    classifier: Classifier
    pictures: tuple[ClassifiedPicture, ...]
    unread: tuple[Unread, ...]
    probabilities: NDArray[np.float64]


def build_classifier(scorer: Scorer, labels: Sequence[Label], *, cache: EmbeddingCache | None = None) -> Classifier:
    """Encode the texts of all labels in batches, each distinct text once, and remember the vector of each label.

    A label's vector is known by the model and the tokens of its texts: a label more costs its own texts.
    Raises ConfigError for a label whose texts cancel out, ModelError for vectors that are not finite.
    """
    if cache is None:
        return Classifier(labels=tuple(labels), vectors=_label_vectors(scorer, labels), head=scorer.dual.head)
    space = scorer.label_space()
    keys = scorer.text_keys([label.texts for label in labels])
    known = cache.get(keys, space)
    new = {key: label for key, label in zip(keys, labels, strict=True) if key not in known}
    if new:
        made = _label_vectors(scorer, list(new.values()))
        known |= cache.put(dict(zip(new, made, strict=True)), space)
    vectors = np.array([known[key] for key in keys], dtype=np.float64)
    return Classifier(labels=tuple(labels), vectors=vectors, head=scorer.dual.head)


def _label_vectors(scorer: Scorer, labels: Sequence[Label]) -> NDArray[np.float64]:
    """(C, P) float64 unit rows."""
    texts = [text for label in labels for text in label.texts]
    owners = [number for number, label in enumerate(labels) for _ in label.texts]
    vectors = np.array([each.vector for each in scorer.texts(texts)])
    return classifier(vectors, owners, len(labels))


def classify(pictures: Gallery, of: Classifier, *, top: int = 1, none_below: float = 0.0) -> Classification:
    """Give each picture its `top` most probable labels.

    none_below: a picture whose best label is less probable than this has none. Of equally probable labels the first counts.
    """
    probabilities, cosines = of.probabilities(pictures), of.cosines(pictures)
    best = top_k(probabilities, top)
    rows = []
    for path, columns, likely, own in zip(pictures.paths, best.columns, best.scores, cosines, strict=True):
        answers = tuple(
            Answer(label=of.labels[column].name, probability=float(share), cosine=float(own[column]))
            for column, share in zip(columns, likely, strict=True)
        )
        label = answers[0].label if answers and answers[0].probability >= none_below else None
        rows.append(ClassifiedPicture(path=path, label=label, answers=answers))
    return Classification(classifier=of, pictures=tuple(rows), unread=pictures.unread, probabilities=probabilities)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateGain:
    """A template's worth on pictures with known labels: the accuracy with it alone, and what the ensemble loses without it."""

    template: str
    alone: float
    loss_without: float

    def to_json(self) -> dict[str, object]:
        return {"template": self.template, "alone": self.alone, "loss_without": self.loss_without}


class TemplateBench:
    """Pictures with known labels, on which templates are tried; each text is encoded once for all trials."""

    def __init__(self, pictures: Gallery, names: Sequence[str], templates: Sequence[str], truth: Sequence[int]) -> None:
        self.templates = tuple(templates)
        texts = [template.replace("{}", name) for template in templates for name in names]
        vectors = np.array([each.vector for each in pictures.scorer.texts(texts)])
        self._texts = vectors.reshape(len(self.templates), len(names), -1)  # T C P
        self._pictures, self._truth = pictures, truth

    def accuracy(self, chosen: Sequence[int]) -> float:
        """The accuracy of the ensemble of these templates, by number."""
        weights = np.array([ensemble(self._texts[list(chosen), label]) for label in range(self._texts.shape[1])])
        return accuracy(self._pictures.vectors.double().cpu().numpy() @ weights.T, self._truth)

    def gains(self) -> tuple[TemplateGain, ...]:
        """The worth of each template. Without the only one nothing is left: its loss is the whole accuracy."""
        every = range(len(self.templates))
        together = self.accuracy(every)
        return tuple(
            TemplateGain(
                template=self.templates[number],
                alone=self.accuracy([number]),
                loss_without=together - (self.accuracy(rest) if (rest := [n for n in every if n != number]) else 0.0),
            )
            for number in every
        )

    def select(self) -> tuple[tuple[str, ...], float]:
        """Choose templates greedily: always the one that helps most, until none helps; return them and their accuracy.

        (Forward selection, as OpenAI chose seven of its eighty templates.) Of equals the first is chosen. The accuracy is
        that on the pictures the choice was made on, and so is flattering.
        """
        chosen: list[int] = []
        best = -1.0
        while len(chosen) < len(self.templates):
            tried = {n: self.accuracy([*chosen, n]) for n in range(len(self.templates)) if n not in chosen}
            number = max(tried, key=lambda n: (tried[n], -n))
            if tried[number] <= best:
                break
            best = tried[number]
            chosen.append(number)
        return tuple(self.templates[number] for number in chosen), best
