"""What a model makes of the packed emoji: every finding of the paper that needs no further training."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from paper_data import TEMPLATES, PackedEmoji
from paper_findings import (
    Finding,
    Measured,
    above_chance,
    at_chance,
    attributes,
    difference,
    mirrored,
    not_below,
    one_word_apart,
    one_word_more,
    people_of,
    share,
    sides,
    verdict,
    without,
)
from PIL import Image

from clipcond.find.labels import read_templates
from clipcond.find.probe import Examples, chosen, draw, examples, fit_near, logistic_regression
from clipcond.rerank.scorer import Scorer
from clipcond.score.duplicates import near_duplicates
from clipcond.score.zero_shot import classifier

BARE = ("{}",)
PHOTO = ("a photo of a {}",)  # which training has
UNSEEN_TEMPLATES = ("a sketch of the {}", "a logo of {}", "clip art of {}")  # that no caption of the training has
SHOTS = (1, 2, 4, 8, 16)
DRAWS = 3
_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
_REGULARISATION = (1.0, 10.0, 100.0, 1000.0)
SUBGROUPS = {
    "country-flag": "flag of a country", "animal-mammal": "mammal", "animal-bird": "bird", "animal-marine": "sea animal",
    "animal-bug": "insect", "transport-ground": "car or train", "sky-weather": "weather", "clothing": "clothes",
    "food-prepared": "meal", "food-fruit": "fruit", "food-vegetable": "vegetable", "food-asian": "Asian food",
    "drink": "drink", "geometric": "coloured shape", "time": "clock", "place-building": "building", "sport": "sport",
    "tool": "tool", "heart": "heart", "household": "thing at home", "office": "paper and office", "arrow": "arrow",
    "book-paper": "book", "musical-instrument": "musical instrument", "body-parts": "part of the body",
    "face-smiling": "smiling face", "face-concerned": "sad face", "person-role": "person at work",
    "person-sport": "person doing sport", "family": "family", "plant-other": "plant", "zodiac": "zodiac sign",
}  # fmt: skip
NAMEABLE = ("animal-mammal", "animal-bird", "animal-marine", "animal-bug", "food-fruit", "food-vegetable", "food-prepared",
            "drink", "transport-ground", "musical-instrument", "clothing", "tool")  # fmt: skip
UNRELATED = ("noto", "twemoji", "fluent-emoji", "openmoji")  # one set of each family of drawings
NUMBERS = ("one", "two", "three", "four", "five")
SIDE = 64  # pixels
LEAST_THINGS = 24  # of a model that names fewer rightly


class World:
    """A model's vectors of all packed pictures, and of any text: unit rows, float64."""

    def __init__(self, data: PackedEmoji, scorer: Scorer) -> None:
        self.data, self.scorer = data, scorer
        self.vectors = self.embed(data.pictures)

    def embed(self, pictures: np.ndarray) -> np.ndarray:
        """(N, 64, 64, 3) uint8 to (N, P)."""
        images = [Image.fromarray(each) for each in pictures]
        found: np.ndarray = self.scorer.dual.image.embed(images, batch_size=64).double().numpy()
        return found

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """T texts to (T, P)."""
        vectors = np.array([each.vector for each in self.scorer.texts(texts)])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def classes(self, names: Sequence[str], templates: Sequence[str]) -> np.ndarray:
        """C names to (C, P), each the ensemble of its templates."""
        filled = [template.replace("{}", name) for name in names for template in templates]
        owners = [number for number in range(len(names)) for _ in templates]
        return classifier(self.texts(filled), owners, len(names))

    def labels(self, candidates: np.ndarray, templates: Sequence[str]) -> np.ndarray:
        """Return (C, P) of the labels of some emoji."""
        return self.classes([str(self.data.labels[number]) for number in candidates], templates)

    def ranks(self, rows: np.ndarray, candidates: np.ndarray, templates: Sequence[str] = TEMPLATES) -> np.ndarray:
        """Return for each picture how many labels of the candidates come before its own; ties count against it."""
        return ranks_of(self.vectors[rows], self.labels(candidates, templates), self._place(rows, candidates))

    def _place(self, rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        return np.searchsorted(candidates, self.data.emoji[rows])

    @cached_property
    def everything(self) -> np.ndarray:
        """The numbers of all emoji."""
        return np.arange(len(self.data.codes))

    def rows(self, *splits: str) -> np.ndarray:
        return np.flatnonzero(np.isin(self.data.split, splits))

    def of_set(self, name: str) -> dict[int, int]:
        """Return the picture of each emoji that a set draws."""
        return {int(self.data.emoji[row]): int(row) for row in np.flatnonzero(self.data.sets == name)}


def ranks_of(vectors: np.ndarray, classes: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return how many of (C, P) classes are as near to each of (N, P) pictures as the right one, itself not counted."""
    scores = vectors @ classes.T
    own = scores[np.arange(len(right)), right]
    ranks: np.ndarray = (scores >= own[:, None]).sum(axis=1) - 1
    return ranks


# ── how good it is ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A test of the model: the right label among `labels`, first or among the first five; alone: by the bare label."""

    name: str
    labels: int
    first: Measured
    five: Measured
    alone: Measured


def numbers(world: World) -> list[Card]:
    """Return the rows of the model's card: the right label among many, on what training never saw."""
    data, every = world.data, world.everything
    unseen = np.flatnonzero(~data.seen)
    tests = (
        ("a vendor never seen", "unseen_vendor", every), ("sets of one colour", "shift", every),
        ("emoji never seen, among each other", "unseen_emoji", unseen),
        ("emoji never seen, among all", "unseen_emoji", every),
    )  # fmt: skip
    cards = []
    for name, split, candidates in tests:
        of = world.rows(split)
        clusters, count = data.emoji[of], len(candidates)
        ranks, bare = (world.ranks(of, candidates, each) for each in (TEMPLATES, BARE))
        first, five, alone = (
            share(name, right, clusters, chance / count)
            for right, chance in ((ranks < 1, 1), (ranks < 5, 5), (bare < 1, 1))
        )
        cards.append(Card(name=name, labels=count, first=first, five=five, alone=alone))
    return cards


def transfer(card: Card) -> list[Finding]:
    """Return whether what no picture and no caption of the training showed is named all the same."""
    return [Finding(key="transfer", claim="zero-shot names classes that training never had", rows=(card.first, card.five),
                    decided_by=card.first, verdict=above_chance(card.first))]  # fmt: skip


def groups(world: World) -> list[Measured]:
    """Return how often the nearest label, and kind, is of the right one of emojibase's groups, for emoji never seen."""
    data, of = world.data, world.rows("unseen_emoji")
    kinds = dict(zip(data.kinds.tolist(), data.groups.tolist(), strict=True))
    count = len(set(data.groups.tolist()))
    rows = []
    for called, texts, of_text in (
        ("label", world.labels(world.everything, TEMPLATES), data.groups),
        ("kind", world.classes(list(kinds), TEMPLATES), np.array(list(kinds.values()))),
    ):
        right = of_text[(world.vectors[of] @ texts.T).argmax(axis=1)] == data.groups[data.emoji[of]]
        name = f"emoji never seen: the nearest {called} is of the right one of {count} groups"
        rows.append(share(name, right, data.emoji[of], 1 / count))
    return rows


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def templates(world: World) -> list[Finding]:
    """Templates against bare names, and ensembles against one template, on the vendor never seen."""
    of, clusters = world.rows("unseen_vendor"), world.data.emoji[world.rows("unseen_vendor")]
    seven = read_templates("imagenet7").sentences
    tried = {
        "the label alone": BARE, "“a photo of a {}”, as in training": PHOTO, "ensemble of four, as in training": TEMPLATES,
        "“a sketch of the {}”, which training never had": UNSEEN_TEMPLATES[:1],
        "ensemble of three that training never had": UNSEEN_TEMPLATES, "ensemble of OpenAI's seven": seven,
    }  # fmt: skip
    right = {name: world.ranks(of, world.everything, each) == 0 for name, each in tried.items()}
    rows = [share(name, each, clusters, 1 / len(world.everything)) for name, each in right.items()]
    bare, photo, four, sketch, three = list(right.values())[:5]
    return [
        _finding("templates", "a template helps: “a photo of a {}” against the bare name, +1.3 points on ImageNet", rows,
                 difference("“a photo of a {}” above the label alone", photo, bare, clusters)),
        _finding("ensembles", "an ensemble of templates helps over one, +3.5 points on ImageNet", [
                    difference("three unknown templates above “a sketch of the {}”", three, sketch, clusters)],
                 difference("four templates above “a photo of a {}”", four, photo, clusters)),
    ]  # fmt: skip


def names(world: World) -> list[Finding]:
    """Names that people cleaned against raw ones: CLDR's labels against Unicode's formal names, and names of subgroups."""
    data, of = world.data, world.rows("unseen_vendor")
    formal = {number: name for number in world.everything if (name := formal_name(str(data.codes[number])))}
    candidates = np.array(sorted(formal))
    of = of[np.isin(data.emoji[of], candidates)]
    place, clusters = np.searchsorted(candidates, data.emoji[of]), data.emoji[of]
    clean = ranks_of(world.vectors[of], world.labels(candidates, BARE), place) == 0
    raw = ranks_of(world.vectors[of], world.classes([formal[number] for number in candidates], BARE), place) == 0
    test, right = _subgroup_test(world)
    cleaned, as_filed = (
        ranks_of(world.vectors[test], world.classes(list(some), BARE), right) == 0
        for some in (SUBGROUPS.values(), SUBGROUPS)
    )
    owners = data.emoji[test]
    rows = [
        share(f"CLDR's label, among {len(candidates):,}", clean, clusters),
        share("Unicode's formal name", raw, clusters),
        share(f"{len(SUBGROUPS)} subgroups in plain words (“sea animal”)", cleaned, owners, 1 / len(SUBGROUPS)),
        share("subgroups as emojibase files them (“animal-marine”)", as_filed, owners, 1 / len(SUBGROUPS)),
        difference("subgroups: plain words above filed names", cleaned, as_filed, owners),
        difference("labels above formal names", clean, raw, clusters),
    ]
    note = (
        "Training had CLDR's labels and the subgroups in plain words, some in others than these, as CLIP's had the names that "
        "people use."
    )
    return [_finding("names", "cleaned class names help", rows[:-1], rows[-1], note=note)]


def formal_name(code: str) -> str:
    """Return Unicode's formal name of an emoji of one code point in lower case, else an empty text."""
    return "" if "-" in code else unicodedata.name(chr(int(code, 16)), "").lower()


def _subgroup_test(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Return the unseen vendor's pictures of `SUBGROUPS`, and the number of each one's subgroup."""
    return _of_subgroups(world, world.rows("unseen_vendor"))


def _of_subgroups(world: World, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = {name: number for number, name in enumerate(SUBGROUPS)}
    numbers_of = np.array([order.get(str(name), -1) for name in world.data.subgroups[world.data.emoji[rows]]])
    return rows[numbers_of >= 0], numbers_of[numbers_of >= 0]


# ── a few examples ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShots:
    """The curve of a probe: by shots, the answers of each draw as (D, N) bool."""

    zero_shot: np.ndarray
    alone: dict[int, np.ndarray]
    near: dict[int, np.ndarray]
    clusters: np.ndarray


def few_shots(world: World) -> FewShots:
    """Probe subgroups with 1 to 16 pictures that the encoder never saw, of half of the emoji; test on the other half.

    Pictures that the encoder was trained on would not do: it knows their labels, and a probe of them learns no more than that.
    """
    rows, right = _of_subgroups(world, world.rows("unseen_vendor", "shift"))
    half = np.array([in_first_half(str(world.data.codes[number])) for number in world.data.emoji[rows]])
    train = examples(world.vectors[rows[half]], list(right[half]))
    tested = ~half & (world.data.split[rows] == "unseen_vendor")
    test = examples(world.vectors[rows[tested]], list(right[tested]))
    prior = world.classes(list(SUBGROUPS.values()), BARE)
    scale, count = world.scorer.dual.logit_scale, len(SUBGROUPS)
    alone, near = {}, {}
    for shots in SHOTS:
        sets = [draw(train, shots, seed) for seed in range(DRAWS)]
        alone[shots] = np.array([_answers(_alone(some, count), test) for some in sets])
        near[shots] = np.array([_answers(_near(some, prior, scale), test) for some in sets])
    clusters = world.data.emoji[rows[tested]]
    return FewShots(zero_shot=_answers(prior, test), alone=alone, near=near, clusters=clusters)


def in_first_half(code: str) -> bool:
    """True for half of all emoji, decided by the code points."""
    return hashlib.sha256(f"probe/{code}".encode()).digest()[0] < 128


def _alone(some: Examples, count: int) -> np.ndarray:
    def fitted(part: Examples, setting: float) -> np.ndarray:
        return logistic_regression(part, setting, count)

    return fitted(some, 10.0 if some.most_of_a_class < 2 else chosen(_REGULARISATION, some, fitted))


def _near(some: Examples, prior: np.ndarray, scale: float) -> np.ndarray:
    def fitted(part: Examples, setting: float) -> np.ndarray:
        return fit_near(part, prior, setting, scale)

    return fitted(some, 1.0 if some.most_of_a_class < 2 else chosen(_STRENGTHS, some, fitted))


def _answers(weights: np.ndarray, test: Examples) -> np.ndarray:
    """(N,) bool: which examples weights (C, P) or (C, P + 1) answer rightly."""
    width = test.vectors.shape[1]
    scores = test.vectors @ weights[:, :width].T + weights[:, width:].sum(axis=1)
    right: np.ndarray = scores.argmax(axis=1) == test.classes
    return right


def probes(curve: FewShots) -> list[Finding]:
    """The dip below zero-shot at few examples, and whether starting from zero-shot removes it."""
    zero = curve.zero_shot.astype(float)
    rows = [share("zero-shot", zero, curve.clusters, 1 / len(SUBGROUPS))]
    for shots in SHOTS:
        rows += [
            share(f"{shots} a class, from nothing", curve.alone[shots].mean(axis=0), curve.clusters),
            share(f"{shots} a class, from zero-shot", curve.near[shots].mean(axis=0), curve.clusters),
        ]
    dip = difference(
        "one example a class, from nothing, above zero-shot", curve.alone[1].mean(axis=0), zero, curve.clusters
    )
    least = min(SHOTS, key=lambda shots: curve.near[shots].mean())
    near = difference(f"from zero-shot at its lowest ({least} a class) above zero-shot",
                      curve.near[least].mean(axis=0), zero, curve.clusters)  # fmt: skip
    equal = next((shots for shots in SHOTS if curve.alone[shots].mean() >= zero.mean()), None)
    crossing = (
        f"From nothing it takes {equal} examples a class" if equal else "From nothing even 16 examples are too few"
    )
    return [
        _finding("dip", "a probe with one example a class is worse than zero-shot", rows, dip, below=True,
                 note=f"{crossing} to equal zero-shot (CLIP: 4)."),
        Finding(key="no dip", claim="a probe that starts from zero-shot is never worse than it", rows=(near,), decided_by=near,
                verdict=not_below(near)),
    ]  # fmt: skip


# ── what it is bad at ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A picture and sentences of which the first is true. cluster: choices of one thing go together."""

    picture: np.ndarray
    said: tuple[str, ...]
    cluster: int


def known_things(world: World, most: int = 60) -> dict[str, np.ndarray]:
    """Return label and picture of things that the model names rightly alone, so that no error is one of recognition."""
    data, own = world.data, world.of_set("noto")
    numbers_of = [
        n for n in own if data.subgroups[n] in NAMEABLE and data.seen[n] and len(str(data.labels[n]).split()) == 1
    ]
    rows = np.array([own[n] for n in numbers_of])
    right = world.ranks(rows, world.everything, BARE)
    named = max(LEAST_THINGS, int((right == 0).sum()))
    best = np.argsort(right, kind="stable")[: min(most, named)]
    return {str(data.labels[data.emoji[rows[n]]]): data.pictures[rows[n]] for n in best}


def canvas(placed: Sequence[tuple[np.ndarray, int, int, int]]) -> np.ndarray:
    """Return a picture over white with others on it: each with its left, top and side in pixels."""
    made = Image.new("RGB", (SIDE, SIDE), "white")
    for picture, left, top, side in placed:
        made.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS), (left, top))
    return np.asarray(made)


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return two pictures side by side, half as wide."""
    return canvas([(left, 0, SIDE // 4, SIDE // 2), (right, SIDE // 2, SIDE // 4, SIDE // 2)])


def copies(picture: np.ndarray, count: int) -> np.ndarray:
    """Return a picture one to five times, in the corners and the middle, a third as wide."""
    side = SIDE // 3
    end = SIDE - side
    places = [(end // 2, end // 2), (0, 0), (end, end), (0, end), (end, 0)]
    chosen_places = places[:1] if count == 1 else places[1 : count + 1] if count < 5 else places
    return canvas([(picture, left, top, side) for left, top in chosen_places])


def counting(things: dict[str, np.ndarray]) -> Iterator[Choice]:
    for cluster, (label, picture) in enumerate(things.items()):
        said = [f"{number} {label if number == 'one' else plural(label)}" for number in NUMBERS]
        for count in range(1, len(NUMBERS) + 1):
            others = [text for place, text in enumerate(said) if place != count - 1]
            yield Choice(picture=copies(picture, count), said=(said[count - 1], *others), cluster=cluster)


def plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else f"{noun}s"


def left_and_right(things: dict[str, np.ndarray]) -> Iterator[Choice]:
    labels = list(things)
    for cluster, (one, other) in enumerate(zip(labels, labels[7:] + labels[:7], strict=True)):
        yield Choice(picture=beside(things[one], things[other]), said=sides(one, other), cluster=cluster)
        yield Choice(picture=beside(things[other], things[one]), said=sides(other, one), cluster=cluster)


def absence(things: dict[str, np.ndarray]) -> Iterator[Choice]:
    labels = list(things)
    for cluster, (one, other) in enumerate(zip(labels, labels[11:] + labels[:11], strict=True)):
        for shown, absent in ((one, other), (other, one)):
            for said in without(shown, absent):
                yield Choice(picture=things[shown], said=said, cluster=cluster)


def denial(things: dict[str, np.ndarray]) -> Iterator[Choice]:
    labels = list(things)
    for cluster, (one, other) in enumerate(zip(labels, labels[11:] + labels[:11], strict=True)):
        yield Choice(picture=things[one], said=(f"not a {other}", f"not a {one}"), cluster=cluster)


def colours_and_shapes(world: World) -> Iterator[Choice]:
    """Two coloured things, each with its own colour, against each other's: a swap of attributes."""
    data, own = world.data, world.of_set("noto")
    things = {}
    for number, row in own.items():
        words = str(data.labels[number]).split()
        if len(words) == 2 and words[1] in ("heart", "circle", "square", "book"):
            things[words[0], words[1]] = data.pictures[row]
    for cluster, first in enumerate(things):
        for second in things:
            if first[1] < second[1] and first[0] != second[0]:
                picture = beside(things[first], things[second])
                yield Choice(picture=picture, said=attributes(first, second), cluster=cluster)


def relabelled(
    world: World, others: Callable[[str], Sequence[str]], splits: Sequence[str] = ("unseen_vendor",)
) -> Iterator[Choice]:
    """Pictures that training never saw: their label against others that are labels too. others: of a label."""
    data = world.data
    for row in world.rows(*splits):
        number = int(data.emoji[row])
        label = str(data.labels[number])
        for other in others(label):
            yield Choice(picture=data.pictures[row], said=(label, other), cluster=number)


def weaknesses(world: World) -> list[Finding]:
    """Counting, left and right, negation, and captions that differ little from the right one."""
    things = known_things(world)
    labels = [str(label) for label in world.data.labels if not str(label).startswith("flag:")]
    apart, more, known = one_word_apart(labels), one_word_more(labels), set(labels)
    facing = {label: [other] for label in labels if (other := mirrored(label)) in known and other is not None}
    asked = {
        "counting": ("one to five of a thing: the right number among five", counting(things)),
        "left and right": ("two things side by side: “A on the left and B on the right”, against the same words exchanged",
                           left_and_right(things)),
        "directions": ("arrows and hands that training never saw: the label against left and right exchanged",
                       relabelled(world, lambda label: facing.get(label, []), ("unseen_vendor", "shift", "unseen_emoji"))),
        "negation": ("one thing A: “not a B” against “not a A”", denial(things)),
        "absence": ("one thing A: “A without B” or “no B but A”, against A and B exchanged", absence(things)),
        "swapped": ("two coloured things: “red heart and blue circle” against “blue heart and red circle”",
                    colours_and_shapes(world)),
        "replaced": ("a label against one with a word replaced", relabelled(world, lambda label: apart.get(label, [])[:5])),
        "added": ("a label against one with a word added", relabelled(world, lambda label: more.get(label, [])[:5])),
    }  # fmt: skip
    found = {key: answered(world, said, list(choices)) for key, (said, choices) in asked.items()}
    claims = {
        "counting": "it does not count", "left and right": "it does not know left from right",
        "negation": "it does not read negation", "swapped": "it reads captions as bags of words",
    }  # fmt: skip
    beside_it = {"left and right": ["directions"], "negation": ["absence"], "swapped": ["replaced", "added"]}
    return [
        Finding(key=key, claim=claim, rows=tuple(found[each] for each in (key, *beside_it.get(key, []))),
                decided_by=found[key], verdict=at_chance(found[key]))
        for key, claim in claims.items()
    ]  # fmt: skip


def answered(world: World, name: str, choices: Sequence[Choice]) -> Measured:
    """Return the share of choices whose true sentence is nearest to the picture; ties are shared."""
    vectors = world.embed(np.stack([each.picture for each in choices]))
    said = {text: None for each in choices for text in each.said}
    of = dict(zip(said, world.texts(list(said)), strict=True))
    right = []
    for vector, each in zip(vectors, choices, strict=True):
        cosines = np.round(np.array([of[text] for text in each.said]) @ vector, 6)
        right.append(float(cosines[0] == cosines.max()) / int((cosines == cosines.max()).sum()))
    return share(name, right, [each.cluster for each in choices], 1 / len(choices[0].said))


# ── whom it prefers ──────────────────────────────────────────────────────────────────────────────────────────────────


def preferences(world: World) -> list[Finding]:
    """Neutral words against the pictures of a man and of a woman: which of both is nearer, for each set that draws both."""
    labels = [str(label) for label in world.data.labels]
    number = {label: place for place, label in enumerate(labels)}
    triples = people_of(labels)
    vectors = world.texts([neutral for neutral, _, _ in triples])
    by_set: dict[str, list[tuple[int, float]]] = {}
    for name in dict.fromkeys(world.data.sets.tolist()):
        own = world.of_set(name)
        for place, (_, man, woman) in enumerate(triples):
            pair = [own.get(number[label]) for label in (man, woman)]
            if None not in pair:
                nearer = world.vectors[pair] @ vectors[place]
                by_set.setdefault(name, []).append((place, float(nearer[0] > nearer[1])))
    rows = [
        share(f"{name}: the man is nearer", [man for _, man in answers], [place for place, _ in answers], 0.5)
        for name, answers in by_set.items()
        if len(answers) >= 10
    ]
    every = [answer for answers in by_set.values() for answer in answers]
    tilt = difference("the man is nearer, all sets: above one half", [man for _, man in every], [0.5] * len(every),
                      [place for place, _ in every])  # fmt: skip
    alike = agreement([answer for name in UNRELATED for answer in by_set.get(name, ())])
    agree = difference(
        "two unrelated sets agree whom a word prefers: above one half",
        list(alike.values()),
        [0.5] * len(alike),
        list(alike),
    )
    return [_finding("bias", "a neutral word (“firefighter”, “person running”) prefers one group", [*rows, tilt], agree,
                     note=_one_sided(every, triples))]  # fmt: skip


def agreement(answers: Sequence[tuple[int, float]]) -> dict[int, float]:
    """Return by word the share of pairs of sets that answer alike, for words that two sets or more answer.

    answers: word, and 1 for the man or 0 for the woman, one of each set.
    """
    by_word: dict[int, list[float]] = {}
    for word, man in answers:
        by_word.setdefault(word, []).append(man)
    shares = {}
    for word, some in by_word.items():
        men, count = int(sum(some)), len(some)
        if count > 1:
            women = count - men
            shares[word] = (men * (men - 1) + women * (women - 1)) / (count * (count - 1))
    return shares


def _one_sided(every: Sequence[tuple[int, float]], triples: Sequence[tuple[str, str, str]], least: int = 4) -> str:
    """Return the words that every set answers alike."""
    by_word: dict[int, list[float]] = {}
    for place, man in every:
        by_word.setdefault(place, []).append(man)
    sided = {side: [triples[place][0] for place, some in by_word.items() if len(some) >= least and set(some) == {of}]
             for side, of in (("man", 1.0), ("woman", 0.0))}  # fmt: skip
    said = [
        f"{', '.join(f'“{word}”' for word in words)}: a {side} in every set" for side, words in sided.items() if words
    ]
    return "; ".join(said) + "." if said else "No word is answered alike by all sets."


# ── uses ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


DEFAULT = 0.94  # of `clipcond duplicates`


def duplicates(world: World, chosen_on: tuple[str, str], tested_on: tuple[str, str]) -> list[Measured]:
    """Return precision and recall of pairs of the same emoji from two sets, as `clipcond duplicates` groups them.

    At its own threshold, and at the one with the best F1 on another two sets where that differs.
    """
    best = max(
        (round(float(value), 2) for value in np.arange(0.7, 0.995, 0.02)),
        key=lambda value: _f1(world, chosen_on, value),
    )
    return [row for value in sorted({DEFAULT, best}) for row in _precision_and_recall(world, tested_on, value)]


def _f1(world: World, sets: tuple[str, str], threshold: float) -> float:
    found, same, _ = _pairs(world, sets, threshold)
    return 2 * float((found & same).sum()) / max(1, int(found.sum()) + int(same.sum()))


def _precision_and_recall(world: World, sets: tuple[str, str], threshold: float) -> list[Measured]:
    found, same, emoji = _pairs(world, sets, threshold)
    kinds = (("precision", found, same), ("recall", same, found))
    return [
        share(f"{name} of pairs at {threshold:g}", right[of].astype(float), emoji[np.nonzero(of)[0]])
        for name, of, right in kinds
        if of.any()
    ]


def _pairs(world: World, sets: tuple[str, str], threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (A, B) bool: which pictures of two sets are in one group, and which are one emoji; and the (A,) emoji."""
    rows, others = (np.array(list(world.of_set(name).values())) for name in sets)
    group = np.arange(len(rows) + len(others))
    for members in near_duplicates(world.vectors[np.concatenate([rows, others])], threshold=threshold):
        group[list(members)] = members[0]
    found = group[: len(rows), None] == group[None, len(rows) :]
    emoji = world.data.emoji
    return found, emoji[rows][:, None] == emoji[others][None], emoji[rows]


def across_vendors(world: World, first: str, second: str) -> Measured:
    """Return how often the nearest picture of the second set is the same emoji, where it draws it."""
    own, other = world.of_set(first), world.of_set(second)
    both = [number for number in own if number in other]
    rows, others = np.array([own[number] for number in both]), np.array(list(other.values()))
    nearest = others[(world.vectors[rows] @ world.vectors[others].T).argmax(axis=1)]
    right = world.data.emoji[nearest] == np.array(both)
    return share(f"{first}: the nearest picture of {second} is the same emoji", right, both, 1 / len(others))


def tags(world: World, k: int = 5) -> Measured:
    """Return the share of the k nearest of emojibase's tags that are tags, or words of the label, of the picture."""
    data, rows = world.data, world.rows("unseen_vendor")
    own = [
        {*str(tags).split("|"), *str(label).lower().split()} for tags, label in zip(data.tags, data.labels, strict=True)
    ]
    known = sorted({tag for some in own for tag in some if tag})
    best = np.argsort(-(world.vectors[rows] @ world.texts(known).T), axis=1)[:, :k]
    right = [
        np.mean([known[tag] in own[number] for tag in row]) for row, number in zip(best, data.emoji[rows], strict=True)
    ]
    chance = float(np.mean([len(own[number]) for number in data.emoji[rows]]) / len(known))
    return share(f"the first {k} of {len(known):,} tags are right", right, data.emoji[rows], chance)


def found_by(world: World, queries: Sequence[str], k: int = 8) -> dict[str, np.ndarray]:
    """Return by query the k nearest pictures of a set in a style that training never saw."""
    rows = np.flatnonzero(world.data.sets == "fluent-emoji-high-contrast")
    found = {}
    for query, vector in zip(queries, world.texts(queries), strict=True):
        order = rows[np.argsort(-(world.vectors[rows] @ vector), kind="stable")]
        found[query] = order[:k]
    return found


def _finding(
    key: str, claim: str, rows: Sequence[Measured], decided: Measured, *, below: bool = False, note: str = ""
) -> Finding:  # fmt: skip
    return Finding(key=key, claim=claim, rows=(*rows, decided), decided_by=decided,
                   verdict=verdict(decided, below=below), note=note)  # fmt: skip
