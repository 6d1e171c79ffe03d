"""Measure a dual encoder on the emoji that its training did not see: a vendor, a tenth of the emoji, a style.

    python recipes/emoji/measure.py --model emoji --data runs/emoji/data

Prints a Markdown table, and a line of JSON with --json. Each row is zero-shot classification: a picture's label is the one
whose text embedding, the mean over templates, is nearest. Intervals are 95 %, from 2,000 resamples of the emoji (all
pictures of one together).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from command_line import check_data, run
from PIL import Image

from clipcond import Scorer

TEMPLATES = ("{}", "a picture of {}", "an emoji of {}", "a drawing of {}")
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: the share of pictures that are right, its interval, and what guessing gives."""

    name: str
    pictures: int
    choices: int
    share: float
    low: float
    high: float
    chance: float

    def markdown(self) -> str:
        return (
            f"| {self.name} | {self.pictures:,} | {self.choices:,} | {self.share:.1%} ({self.low:.1%}–{self.high:.1%}) | "
            f"{self.chance:.2%} |"
        )


def text_vectors(scorer: Scorer, labels: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """Return (D, P) float64 of unit length: the mean over templates of each label's vectors."""
    texts = [template.format(label) for label in labels for template in templates]
    vectors = np.stack([each.vector for each in scorer.texts(texts, batch_size=256)])
    mean = vectors.reshape(len(labels), len(templates), -1).mean(1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def picture_vectors(scorer: Scorer, paths: Sequence[Path]) -> np.ndarray:
    """Return (N, P) float64 of unit length."""
    pictures = [Image.open(path).convert("RGB") for path in paths]
    return scorer.dual.image.embed(pictures, 128).double().cpu().numpy()


def share(name: str, right: np.ndarray, of: Sequence[str], *, choices: int, chance: float, seed: int = 0) -> Row:
    """Return the share of `right`, with an interval that resamples what `of` says belongs together."""
    owners, index = np.unique(np.array(of), return_inverse=True)
    hits, counts = np.bincount(index, right), np.bincount(index)
    drawn = np.random.default_rng(seed).multinomial(len(owners), np.full(len(owners), 1 / len(owners)), size=RESAMPLES)
    low, high = np.quantile(drawn @ hits / (drawn @ counts), (0.025, 0.975))
    return Row(name, len(right), choices, float(right.mean()), float(low), float(high), chance)


def ranks(pictures: np.ndarray, texts: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return (N,) int: how many texts are nearer to each picture than its own; half of those that are as near."""
    scores = pictures @ texts.T
    mine = scores[np.arange(len(own)), own][:, None]
    return ((scores > mine).sum(1) + ((scores == mine).sum(1) - 1) // 2).astype(int)


def read_pictures(table: Path, labels: Mapping[str, Mapping[str, str]]) -> tuple[list[Path], list[str]]:
    """Return the pictures of a table and the code of each, which its file is named by."""
    with table.open(newline="", encoding="utf-8") as file:
        paths = [table.parent / row["image"] for row in csv.DictReader(file)]
    return paths, [path.stem for path in paths if path.stem in labels]


def measure(scorer: Scorer, data: Path, *, by_group: bool = False) -> list[Row]:
    """Return every row of the table. by_group: the vendor never seen by emojibase's groups, too."""
    with (data / "labels.csv").open(newline="", encoding="utf-8") as file:
        labels = {row["code"]: row for row in csv.DictReader(file)}
    codes = list(labels)
    names = [labels[code]["label"] for code in codes]
    at = {code: number for number, code in enumerate(codes)}
    ensemble, bare = (text_vectors(scorer, names, each) for each in (TEMPLATES, TEMPLATES[:1]))
    rows = []
    for table, called in (("unseen_vendor", "a vendor never seen"), ("shift", "a style never seen, of one colour")):
        paths, of = read_pictures(data / f"{table}.csv", labels)
        pictures, own = picture_vectors(scorer, paths), np.array([at[code] for code in of])
        found = ranks(pictures, ensemble, own)
        for k in (1, 5):
            rows.append(share(f"{called}, top {k}", found < k, of, choices=len(codes), chance=k / len(codes)))
        if table == "unseen_vendor":
            right = ranks(pictures, bare, own) < 1
            rows.append(share(f"{called}, bare labels, top 1", right, of, choices=len(codes), chance=1 / len(codes)))
        if table == "unseen_vendor" and by_group:
            own_groups = np.array([labels[code]["group"] for code in of])
            for group in sorted(set(own_groups)):
                some = np.flatnonzero(own_groups == group)
                right, whose = found[some] < 1, [of[n] for n in some]
                rows.append(share(f"{called}, {group}, top 1", right, whose, choices=len(codes), chance=1 / len(codes)))
    unseen = [code for code in codes if labels[code]["unseen"] == "1"]
    paths, of = read_pictures(data / "unseen_emoji.csv", labels)
    pictures, place = picture_vectors(scorer, paths), {code: number for number, code in enumerate(unseen)}
    among = ensemble[[at[code] for code in unseen]]
    found = ranks(pictures, among, np.array([place[code] for code in of]))
    for k in (1, 5):
        rows.append(share(f"emoji never seen, top {k}", found < k, of, choices=len(unseen), chance=k / len(unseen)))
    own_groups, of_label = (np.array([labels[code]["group"] for code in some]) for some in (of, codes))
    kinds = {row["kinds"].split("|")[0]: row["group"] for row in labels.values()}
    of_kind, kind_vectors = np.array(list(kinds.values())), text_vectors(scorer, list(kinds), TEMPLATES)
    choices = len(set(of_label))
    for name, texts, groups in (("label", ensemble, of_label), ("kind", kind_vectors, of_kind)):
        right = groups[(pictures @ texts.T).argmax(1)] == own_groups
        called = f"emoji never seen, group of the nearest {name}"
        rows.append(share(called, right, of, choices=choices, chance=1 / choices))
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="emoji")
    options.add_argument("--data", type=Path, default=Path("runs/emoji/data"))
    options.add_argument("--groups", action="store_true", help="the vendor never seen by groups, too")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    check_data(options, given.data)
    rows = measure(Scorer.load(given.model), given.data, by_group=given.groups)
    if given.json:
        shown: dict[str, Any] = {row.name: [round(row.share, 4), round(row.low, 4), round(row.high, 4)] for row in rows}
        print(json.dumps(shown))
        return
    print("| measured | pictures | choices | right (95 % interval) | chance |\n|---|---|---|---|---|")
    print("\n".join(row.markdown() for row in rows))


if __name__ == "__main__":
    run(main)
