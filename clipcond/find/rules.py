"""Content rules in words: prompts for what a rule is about, prompts against it, and a threshold."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipcond.encode.logits import softmax
from clipcond.errors import DataError, ResourceMissing
from clipcond.find.gallery import Gallery, Unread
from clipcond.rerank.tables import IMAGE_COLUMNS, column_of, read_table
from clipcond.score.scales import logit
from clipcond.score.thresholds import Calibration, threshold_for
from clipcond.wording import first_line, visible

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORM = 'expected [[rule]] with name = "…", for = ["…"], against = ["…"], threshold = 0.5'
_KEYS = {"name", "for", "against", "threshold"}
_TRUE = frozenset({"1", "true", "yes", "y", "x"})
_FALSE = frozenset({"0", "false", "no", "n", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule. for_, against: prompts, one or more each.   threshold: the probability at or above which it applies."""

    name: str
    for_: tuple[str, ...]
    against: tuple[str, ...]
    threshold: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A rule applied to a picture. because: the prompt, of the winning side, that fits the picture best."""

    rule: str
    applies: bool
    probability: float
    threshold: float
    because: str

    def to_json(self) -> dict[str, object]:
        return {
            "rule": self.rule, "applies": self.applies, "probability": round(self.probability, 6),
            "threshold": self.threshold, "because": self.because,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenedPicture:
    """The verdicts of a picture, in the order of the rules."""

    path: Path
    verdicts: tuple[Verdict, ...]

    @property
    def flagged(self) -> tuple[Verdict, ...]:
        """The rules that apply."""
        return tuple(verdict for verdict in self.verdicts if verdict.applies)

    def to_json(self) -> dict[str, object]:
        """The row of this picture."""
        return {
            "path": str(self.path), "flagged": [each.rule for each in self.flagged],
            "verdicts": [each.to_json() for each in self.verdicts],
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """Every picture's verdicts."""

    pictures: tuple[ScreenedPicture, ...]
    unread: tuple[Unread, ...]


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Read rules from TOML, or from JSON where the file ends so. Raises ResourceMissing, and DataError naming the rule."""
    if not path.is_file():
        raise ResourceMissing(f"no rules at {path}; {_FORM}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        document = json.loads(text) if path.suffix == ".json" else _toml(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}; {_FORM}") from error
    given = document.get("rule") if isinstance(document, dict) else document
    if not isinstance(given, list) or not given:
        raise DataError(f"{path} holds no rules; {_FORM}")
    rules = tuple(_rule(path, number, each) for number, each in enumerate(given, 1))
    names = [rule.name for rule in rules]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: two rules are named {visible(twice)!r}")
    return rules


def rules_text(rules: Sequence[Rule]) -> str:
    """The rules as TOML, as `read_rules` takes them."""

    def quoted(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    return "\n".join(
        f"[[rule]]\nname = {quoted(rule.name)}\nfor = {quoted(list(rule.for_))}\nagainst = {quoted(list(rule.against))}\n"
        f"threshold = {rule.threshold:.6f}\n"
        for rule in rules
    )


def probabilities(pictures: Gallery, rule: Rule) -> NDArray[np.float64]:
    """(N,) float64: the probability of the prompts for a rule, against those against it.

    The softmax of logit_scale · cosine over all prompts of the rule, summed over those for it: more prompts of one side
    make it no likelier by themselves, for each side's sum is divided by its number of prompts.
    """
    return _likely(pictures, _cosines(pictures, rule.for_), _cosines(pictures, rule.against))


def _likely(pictures: Gallery, for_: NDArray[np.float64], against: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = pictures.scorer.dual.logit_scale
    sides = np.column_stack([_mean_exponent(logit(side, scale)) for side in (for_, against)])
    return softmax(sides)[:, 0]


def screen(pictures: Gallery, rules: Sequence[Rule]) -> Screening:
    """Apply every rule to every picture."""
    fits = [(rule, _cosines(pictures, rule.for_), _cosines(pictures, rule.against)) for rule in rules]
    tables = [(rule, _likely(pictures, for_, against), for_, against) for rule, for_, against in fits]
    rows = []
    for number, path in enumerate(pictures.paths):
        verdicts = []
        for rule, likely, for_, against in tables:
            applies = bool(likely[number] >= rule.threshold)
            prompts, cosines = (rule.for_, for_[number]) if applies else (rule.against, against[number])
            verdicts.append(
                Verdict(rule=rule.name, applies=applies, probability=float(likely[number]), threshold=rule.threshold,
                        because=prompts[int(cosines.argmax())])
            )  # fmt: skip
        rows.append(ScreenedPicture(path=path, verdicts=tuple(verdicts)))
    return Screening(pictures=tuple(rows), unread=pictures.unread)


def calibrate(
    pictures: Gallery,
    rules: Sequence[Rule],
    truth: Mapping[str, Mapping[Path, bool]],
    *,
    precision: float | None = None,
    recall: float | None = None,
) -> tuple[tuple[Rule, Calibration], ...]:
    """Set the threshold of each rule that `truth` knows about, for a wanted precision or recall.

    truth: for a rule's name, whether it should apply to a picture. Raises ConfigError as `threshold_for` does, DataError
    where no picture of a rule is among them.
    """  # fmt: skip
    done = []
    for rule in rules:
        known = truth.get(rule.name, {})
        rows = [number for number, path in enumerate(pictures.paths) if path in known]
        if not rows:
            raise DataError(f"no picture says whether {visible(rule.name)!r} applies; expected a column of that name")
        scores = probabilities(pictures, rule)[rows]
        right = [known[pictures.paths[row]] for row in rows]
        found = threshold_for(scores, right, precision=precision, recall=recall)
        done.append((replace(rule, threshold=round(found.threshold, 6)), found))
    return tuple(done)


def read_verdicts(table: Path, rules: Sequence[Rule], paths: Sequence[Path]) -> dict[str, dict[Path, bool]]:
    """Read the right verdicts: a column image, and for each rule a column of its name with 1 or 0, yes or no.

    An empty value says no. Raises DataError for a missing column and another value.
    """
    rows = read_table(table)
    image = column_of(table, rows, IMAGE_COLUMNS, "picture")
    by_place = {str(path.absolute().resolve()): path for path in paths}
    found: dict[str, dict[Path, bool]] = {rule.name: {} for rule in rules}
    for rule in rules:
        column = column_of(table, rows, (rule.name.casefold(),), f"rule {rule.name}")
        for number, row in enumerate(rows, 2):
            value = row.get(column, "").strip().casefold()
            if value not in _TRUE | _FALSE:
                raise DataError(f"{table}, row {number}: {visible(value)!r} for {visible(rule.name)}; expected 1 or 0")
            path = by_place.get(str((table.parent / row.get(image, "")).absolute().resolve()))
            if path is not None:
                found[rule.name][path] = value in _TRUE
    return found


def _rule(path: Path, number: int, given: Any) -> Rule:
    where = f"{path}, rule {number}"
    if not isinstance(given, dict) or not isinstance(given.get("name"), str) or not given["name"].strip():
        raise DataError(f"{where} has no name; {_FORM}")
    where = f"{path}, rule {visible(given['name'])!r}"
    if unknown := sorted(set(given) - _KEYS):
        raise DataError(f"{where}: unknown key {visible(unknown[0])!r}; {_FORM}")
    threshold = given.get("threshold", 0.5)
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
        raise DataError(f"{where}: threshold is {threshold!r}; expected a number from 0 to 1")
    sides = []
    for side in ("for", "against"):
        texts = given.get(side)
        texts = [texts] if isinstance(texts, str) else texts
        if (
            not isinstance(texts, list)
            or not texts
            or not all(isinstance(text, str) and text.strip() for text in texts)
        ):
            raise DataError(f"{where} has no prompts {side!r}; {_FORM}")
        sides.append(tuple(texts))
    return Rule(name=given["name"].strip(), for_=sides[0], against=sides[1], threshold=float(threshold))


def _toml(text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # pragma: no cover
        import tomli as tomllib
    return tomllib.loads(text)


def _cosines(pictures: Gallery, prompts: Sequence[str]) -> NDArray[np.float64]:
    vectors = np.array([each.vector for each in pictures.scorer.texts(prompts)])
    found: NDArray[np.float64] = pictures.vectors.double().cpu().numpy() @ vectors.T
    return found


def _mean_exponent(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """log of the mean of exp over the last axis, without overflow."""
    most = logits.max(axis=1)
    mean: NDArray[np.float64] = most + np.log(np.exp(logits - most[:, None]).mean(axis=1))
    return mean
