"""Questions about pictures: answers become statements, and the statement that fits best is the answer.

A dual encoder compares pictures with statements and knows no questions, so `what colour is the car?` with `red` becomes
`the car is red`, `a red car` and their like. It cannot count or negate well, and says so where that is asked of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipcond.find.classify import Answer
from clipcond.find.gallery import Gallery
from clipcond.score.similarity import DIGITS
from clipcond.score.zero_shot import classifier, top_k

_COLOUR = re.compile(r"what (?:colou?r|kind|type|sort) (?:of )?(?:is|are|was|were) (?P<the>the |a |an )?(?P<thing>.+)")
_IS = re.compile(r"(?:what|which|who|where|how|when) (?P<is>is|are|was|were) (?P<rest>(?:the |a |an )?.+)")
_DOING = re.compile(r"what (?P<is>is|are|was|were) (?P<who>.+) doing")
_MANY = re.compile(r"how many (?P<thing>.+?)(?: (?:are|is|were|was|can).*)?")
_YES = re.compile(
    r"(?:is|are) there (?P<rest>.+)|does (?:the|this) (?:picture|image|photo) (?:show|have|contain) (?P<show>.+)"
)
_COUNTS = "this model cannot count reliably; take the answer as a guess"
_NEGATES = "this model barely reads negation; yes against no is a guess"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """Sentences with `{}` for the answer, and what to say of a question that such a model is bad at.

    yes_no: the first sentence says yes, the second no, and neither has a place for the answer.
    """

    sentences: tuple[str, ...]
    warning: str = ""
    yes_no: bool = False

    def of(self, answer: str) -> tuple[str, ...]:
        """The statements that say this answer."""
        if self.yes_no:
            return self.sentences[:1] if answer.casefold() in ("yes", "true") else self.sentences[1:2]
        return tuple(sentence.replace("{}", answer) for sentence in self.sentences)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredPicture:
    """The answers of a picture, best first.

    margin: cosine of the first above the second, a mean over the statements.   sure: False where that is within the noise
    of how the statements are put, two standard errors of the mean, or of rounding.
    """

    path: Path
    answers: tuple[Answer, ...]
    margin: float
    sure: bool

    def to_json(self) -> dict[str, object]:
        """The row of this picture."""
        return {
            "path": str(self.path), "answer": self.answers[0].label, "sure": self.sure, "margin": round(self.margin, 6),
            "answers": [each.to_json() for each in self.answers],
        }  # fmt: skip


def given_statements(sentence: str) -> Statements:
    """Return the user's own sentence, with `{}` where the answer goes."""
    return Statements(sentences=(sentence,))


def statements_for(question: str) -> Statements:
    """Return the statements of a question: forms for colours, counts, yes and no, and `what is …`; else question and answer."""
    asked = re.sub(r"\s+", " ", question.strip().rstrip("?").strip())
    low = asked.casefold()
    if found := _COLOUR.fullmatch(low):
        thing = found["thing"]
        return Statements(sentences=(f"a {{}} {thing}", f"the {thing} is {{}}", f"a picture of a {{}} {thing}"))
    if found := _MANY.fullmatch(low):
        thing = found["thing"]
        return Statements(sentences=(f"{{}} {thing}", f"a picture of {{}} {thing}"), warning=_COUNTS)
    if found := _YES.fullmatch(low):
        shown = found["rest"] or found["show"]
        return Statements(
            sentences=(f"a picture of {shown}", f"a picture without {shown}"), warning=_NEGATES, yes_no=True
        )
    if found := _DOING.fullmatch(low):
        who, verb = found["who"], found["is"]
        return Statements(sentences=(f"{who} {verb} {{}}", f"{who} {{}}", f"a picture of {who} {{}}"))
    if found := _IS.fullmatch(low):
        rest, verb = found["rest"], found["is"]
        return Statements(sentences=(f"{rest} {verb} {{}}", f"a picture: {rest} {verb} {{}}"))
    return Statements(sentences=(f"{asked}? {{}}", "a picture of {}"))


def ask(pictures: Gallery, statements: Statements, answers: Sequence[str]) -> tuple[AnsweredPicture, ...]:
    """Rank the answers for every picture.

    Probabilities are those of the ensemble of an answer's statements among all answers. Raises ConfigError where the
    statements of an answer cancel out.
    """
    said = [statements.of(answer) for answer in answers]
    texts = [text for of in said for text in of]
    owners = [number for number, of in enumerate(said) for _ in of]
    vectors = np.array([each.vector for each in pictures.scorer.texts(texts)])
    images = pictures.vectors.double().cpu().numpy()
    ensembles = classifier(vectors, owners, len(answers))
    cosines = images @ ensembles.T
    shares = pictures.scorer.dual.head.probabilities(cosines)
    best = top_k(shares, len(answers))
    apart = images @ vectors.T  # N T
    rows = []
    for number, path in enumerate(pictures.paths):
        columns = best.columns[number]
        ranked = tuple(
            Answer(label=answers[c], probability=float(shares[number, c]), cosine=float(cosines[number, c]))
            for c in columns
        )
        margin, noise = _margin(apart[number], owners, int(columns[0]), int(columns[1]))
        rows.append(AnsweredPicture(path=path, answers=ranked, margin=margin, sure=margin > noise))
    return tuple(rows)


def _margin(cosines: np.ndarray, owners: Sequence[int], first: int, second: int) -> tuple[float, float]:
    """Return the mean margin of two answers over their statements, and its noise: two standard errors, or rounding."""
    of = np.asarray(owners)
    differences = cosines[of == first] - cosines[of == second]
    floor = 10.0**-DIGITS
    if len(differences) < 2:
        return float(differences.mean()), floor
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5
    return float(differences.mean()), max(floor, 2 * error)
