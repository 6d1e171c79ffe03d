"""Teach a second text tower what the first one says, in German, French, Spanish and Chinese, from parallel labels alone.

    python recipes/emoji/languages.py --model emoji --data runs/emoji/data --out runs/emoji/languages

The tower begins as the English one. A step takes labels of one emoji in several languages and moves each towards the vector of
the English label, which stands still; no picture is looked at. Labels of unseen emoji are left out. Writes a model folder for
`--model`, and prints for each language how often the right label of all is nearest to a picture of a vendor never seen,
and to an emoji never seen among their labels, before and after.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command_line import check_data, run
from measure import Row, picture_vectors, ranks, read_pictures, share, text_vectors
from names import LANGUAGES

from clipcond import Scorer
from clipcond.errors import ModelError
from clipcond.models.open_clip_folder import write_open_clip_folder
from clipcond.models.trainable import load_trainable
from clipcond.train.batches import id_rows
from clipcond.train.model import text_features
from clipcond.train.optimizer import learning_rate_at

STEPS, BATCH, RATE, WARMUP = 2000, 256, 1e-3, 100
COLUMNS = ("label", *LANGUAGES)  # of labels.csv; English first


def distil(model: Any, labels: Sequence[Mapping[str, str]], *, steps: int = STEPS, seed: int = 0) -> None:
    """Train the text tower so that a label in any language has the vector of the English one; 1 - cosine is the loss."""
    known = [row for row in labels if row["unseen"] == "0"]
    pairs = [(number, row[column]) for number, row in enumerate(known) for column in COLUMNS if row[column]]
    owners, ids = torch.tensor([number for number, _ in pairs]), id_rows([text for _, text in pairs])[0]
    with torch.no_grad():
        said = torch.from_numpy(id_rows([row["label"] for row in known])[0])
        wanted = torch.cat([text_features(model, part) for part in said.split(BATCH)])
    trains = [p for name, p in model.named_parameters() if not name.startswith("visual.") and name != "logit_scale"]
    optimizer = torch.optim.AdamW(trains, lr=RATE, weight_decay=0.01, betas=(0.9, 0.98))
    draw = np.random.default_rng(seed)
    for step in range(steps):
        rows = torch.from_numpy(draw.choice(len(pairs), BATCH, replace=False))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, steps, RATE, WARMUP)
        optimizer.zero_grad()
        loss = 1 - (text_features(model, torch.from_numpy(ids)[rows]) * wanted[owners[rows]]).sum(1).mean()
        loss.backward()
        optimizer.step()
        if step % 200 == 0 or step == steps - 1:
            print(f"step {step}/{steps}  1 - cosine {float(loss.detach()):.4f}", flush=True)


def measure(scorer: Scorer, data: Path, labels: Sequence[Mapping[str, str]]) -> list[Row]:
    """Return two rows a language: a vendor never seen among all labels, emoji never seen among theirs."""
    by_code = {row["code"]: row for row in labels}
    rows = []
    for table, unseen in (("unseen_vendor", False), ("unseen_emoji", True)):
        among = [row for row in labels if not unseen or row["unseen"] == "1"]
        place = {row["code"]: number for number, row in enumerate(among)}
        paths, of = read_pictures(data / f"{table}.csv", by_code)
        pictures, own = picture_vectors(scorer, paths), np.array([place[code] for code in of])
        for column in COLUMNS:
            texts = text_vectors(scorer, [row[column] or row["label"] for row in among], ("{}",))
            name = f"{'en' if column == 'label' else column}, {table.replace('_', ' ')}"
            right = ranks(pictures, texts, own) < 1
            rows.append(share(name, right, of, choices=len(among), chance=1 / len(among)))
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="emoji")
    options.add_argument("--data", type=Path, default=Path("runs/emoji/data"))
    options.add_argument("--out", type=Path, default=Path("runs/emoji/languages"))
    options.add_argument("--steps", type=int, default=STEPS)
    given = options.parse_args()
    check_data(options, given.data)
    if given.out.exists():
        raise ModelError(f"{given.out} is there already; name another folder")
    with (given.data / "labels.csv").open(newline="", encoding="utf-8") as file:
        labels = list(csv.DictReader(file))
    torch.manual_seed(0)
    before = measure(Scorer.load(given.model), given.data, labels)
    trainable = load_trainable(given.model)
    distil(trainable.model, labels, steps=given.steps)
    write_open_clip_folder(trainable.model, trainable.config, given.out)
    after = measure(Scorer.load(str(given.out)), given.data, labels)
    print("| language, pictures | choices | before | after | chance |\n|---|---|---|---|---|")
    for one, other in zip(before, after, strict=True):
        shown = f"{other.share:.1%} ({other.low:.1%}–{other.high:.1%})"
        print(f"| {one.name} | {one.choices:,} | {one.share:.1%} | {shown} | {one.chance:.2%} |")


if __name__ == "__main__":
    run(main)
