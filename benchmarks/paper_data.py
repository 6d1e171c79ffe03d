"""The emoji of recipes/emoji in one file, for trainings that have no folder of pictures at hand."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from clipcond.files import check_output
from clipcond.images.preprocess import Preprocess
from clipcond.train.batches import id_rows

TABLES = ("train", "unseen_vendor", "unseen_emoji", "shift")
TESTS = ("seen_vendors", "unseen_vendor", "shift", "unseen_emoji")  # of the trainings
TEMPLATES = ("{}", "a picture of {}", "an emoji of {}", "a drawing of {}")  # as recipes/emoji/measure.py has them
_PREPROCESS = Preprocess(height=64, width=64, mean=(0.5,) * 3, std=(0.5,) * 3)  # a few pictures are not square
_LEFT_OUT = 10  # one picture in so many of `train.csv` is left out of the trainings: the test on the same vendors


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedEmoji:
    """N pictures of E emoji with M different captions.

    pictures: (N, 64, 64, 3) uint8.   emoji: (N,) the number of each picture's emoji.   split: (N,) one of `train` and
    `TESTS`.   sets: (N,) who drew it.   codes, labels, tags (joined by `|`), groups, subgroups, kinds (the narrow one, in plain
    words): E.   seen: (E,) True for emoji that training may see.
    captions: (M, L) int32 ids.   words: M texts.   captions_of: (E, K) int64 numbers of captions, −1 behind the last.
    label_ids: (E, T, L) int32, of each label in `TEMPLATES`.
    """

    pictures: np.ndarray
    emoji: np.ndarray
    split: np.ndarray
    sets: np.ndarray
    codes: np.ndarray
    labels: np.ndarray
    tags: np.ndarray
    groups: np.ndarray
    subgroups: np.ndarray
    kinds: np.ndarray
    seen: np.ndarray
    captions: np.ndarray
    words: np.ndarray
    captions_of: np.ndarray
    label_ids: np.ndarray

    @classmethod
    def read(cls, path: Path) -> PackedEmoji:
        """Read what `pack` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{name: file[name] for name in cls.__dataclass_fields__})

    def rows(self, split: str) -> np.ndarray:
        """Return the numbers of the pictures of a split; in the tests only of emoji that can be answered.

        Of the tests on emoji that training saw, what no picture of `train` shows is left out: a classifier with a class for
        each emoji could never name it.
        """
        rows = np.flatnonzero(self.split == split)
        return rows if split == "unseen_emoji" else rows[np.isin(self.emoji[rows], self.known)]

    @property
    def known(self) -> np.ndarray:
        """The numbers of the emoji that some picture of `train` shows."""
        return np.unique(self.emoji[self.split == "train"])

    def candidates(self, split: str) -> np.ndarray:
        """Return the numbers of the emoji among which the pictures of a split are told apart."""
        return np.flatnonzero(~self.seen) if split == "unseen_emoji" else self.known


def left_out(set_name: str, code: str) -> bool:
    """True for a tenth of all pictures, decided by who drew them and what they show."""
    return int(hashlib.sha256(f"{set_name}/{code}".encode()).hexdigest(), 16) % _LEFT_OUT == 0


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pack(data: Path, out: Path, colours: int = 0) -> PackedEmoji:
    """Put the tables of `data` and the pictures as their sets draw them into one file, of the sets that some test has.

    colours: as many at the most in each picture, which makes the file smaller; 0 leaves them as they are.
    """
    check_output(out)
    known = read_csv(data / "labels.csv")
    numbers = {row["code"]: number for number, row in enumerate(known)}
    drawn = {name: dict.fromkeys(filter(_plain, _images(data / f"{name}.csv"))) for name in TABLES}
    tested = {_set_and_code(image)[0] for name in TABLES[1:] for image in drawn[name]}  # not the sets of flags
    images = [(name, image) for name in TABLES for image in drawn[name] if _set_and_code(image)[0] in tested]
    sets, codes = zip(*(_set_and_code(image) for _, image in images), strict=True)
    split = [_split(name, *_set_and_code(image)) for name, image in images]
    captions_of, words = _captions(read_csv(data / "train.csv"), numbers)
    made = PackedEmoji(
        pictures=np.stack([_pixels(data / image, colours) for _, image in images]),
        emoji=np.array([numbers[code] for code in codes]), split=np.array(split), sets=np.array(sets),
        codes=np.array(list(numbers)), **{f"{name}s": _column(known, name) for name in ("label", "group", "subgroup")},
        tags=_column(known, "tags"), kinds=np.array([row["kinds"].split("|")[0] for row in known]),
        seen=np.array([row["unseen"] == "0" for row in known]), captions=_ids(words), words=np.array(words),
        captions_of=captions_of, label_ids=_label_ids([row["label"] for row in known]),
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **{name: getattr(made, name) for name in PackedEmoji.__dataclass_fields__})
    print(json.dumps({"file": str(out), "MB": round(out.stat().st_size / 1e6, 1)} | _counts(split)))
    return made


def _pixels(path: Path, colours: int) -> np.ndarray:
    """Return (64, 64, 3) uint8."""
    with Image.open(path) as image:
        pixels = _PREPROCESS.pixels(image)
    if not colours:
        return pixels
    return np.asarray(Image.fromarray(pixels).quantize(colours, dither=Image.Dither.NONE).convert("RGB"))


def _images(table: Path) -> list[str]:
    return [row["image"] for row in read_csv(table)]


def _plain(image: str) -> bool:
    """True for a picture as its set draws it; the recipe trains on outlined, drawn and bent ones too."""
    return image.startswith("pictures/")


def _set_and_code(image: str) -> tuple[str, str]:
    path = Path(image)
    return path.parent.name, path.stem


def _column(rows: Sequence[dict[str, str]], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows])


def _split(table: str, set_name: str, code: str) -> str:
    return "seen_vendors" if table == "train" and left_out(set_name, code) else table


def _counts(split: Sequence[str]) -> dict[str, int]:
    return {name: split.count(name) for name in ("train", *TESTS)}


def _captions(rows: Iterable[dict[str, str]], numbers: dict[str, int]) -> tuple[np.ndarray, list[str]]:
    """Return the captions of each emoji by number, and the different captions."""
    places: dict[str, int] = {}
    own: list[dict[int, None]] = [{} for _ in numbers]
    for row in rows:
        number = places.setdefault(row["caption"], len(places))
        own[numbers[_set_and_code(row["image"])[1]]][number] = None
    of = np.full((len(own), max(map(len, own))), -1, np.int64)
    for row_of, some in zip(of, own, strict=True):
        row_of[: len(some)] = list(some)
    return of, list(places)


def _ids(texts: Sequence[str]) -> np.ndarray:
    return id_rows(texts)[0].astype(np.int32)


def _label_ids(labels: Sequence[str]) -> np.ndarray:
    filled = [template.replace("{}", label) for label in labels for template in TEMPLATES]
    ids = _ids(filled)
    return ids.reshape(len(labels), len(TEMPLATES), ids.shape[1])
