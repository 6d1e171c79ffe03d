"""Put the trained model where it ships, in float16, with the licences of the pictures that it was trained on.

    python recipes/emoji/pack.py --model runs/emoji/settled --data runs/emoji/data --out clipcond/emoji

Rows of the token table that no caption of train.csv uses are zero, and the file leaves them out. Nothing is written unless
the licence of every set that was trained on lets the weights ship, and the rounded weights give the embeddings of the trained
ones (cosine above 0.999).
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import torch

from clipcond.runtime.torchvision_repair import repair

repair()

from command_line import check_data, run
from names import TRAINED
from open_clip import CLIP

from clipcond.models.open_clip_folder import read_config, read_open_clip_folder, write_open_clip_folder
from clipcond.prompt.tokenizer import EOS
from clipcond.train.batches import id_rows

SHIPS = {"Apache-2.0", "CC-BY-4.0", "CC0-1.0", "MIT"}  # licences that ask for no more than to be named
LIMIT = 12 * 2**20  # bytes


def token_rows(captions: list[str]) -> torch.Tensor:
    """Return (B, 77) int64: BOS, the caption's tokens, and EOS to the end."""
    ids, _ = id_rows(captions)
    rows = torch.full((len(ids), 77), EOS)
    rows[:, : ids.shape[1]] = torch.from_numpy(ids)
    return rows


def keep_rows(model: CLIP, ids: torch.Tensor) -> None:
    """Set every row of the token table to zero but those of `ids`."""
    table = model.token_embedding.weight
    with torch.no_grad():
        kept = table[ids].clone()
        table.zero_()
        table[ids] = kept


def check_same(before: CLIP, after: CLIP, captions: list[str]) -> float:
    """Return the least cosine between the embeddings of two models, of captions and of random pictures."""
    pictures = torch.rand(64, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        least = [
            torch.nn.functional.cosine_similarity(getattr(before, name)(of), getattr(after, name)(of)).min()
            for name, of in (("encode_text", token_rows(captions)), ("encode_image", pictures))
        ]
    return float(min(least))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, default=Path("runs/emoji/settled"))
    options.add_argument("--data", type=Path, default=Path("runs/emoji/data"))
    options.add_argument("--out", type=Path, default=Path("clipcond/emoji"))
    given = options.parse_args()
    check_data(options, given.data)
    folder = given.model / "model" if (given.model / "model").is_dir() else given.model

    licences = [
        each for each in json.loads((given.data / "licences.json").read_text("utf-8")) if each["set"] in TRAINED
    ]
    for each in licences:
        assert each["licence"] in SHIPS, f"{each['set']} is under {each['licence']}"
    with (given.data / "train.csv").open(newline="", encoding="utf-8") as file:
        captions = sorted({row["caption"] for row in csv.DictReader(file)})

    trained, rounded = read_open_clip_folder(folder).eval(), read_open_clip_folder(folder).eval()
    ids = token_rows(captions).unique()
    keep_rows(rounded, ids)
    for value in rounded.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half().float())
    least = check_same(trained, rounded, captions[:: max(1, len(captions) // 256)])
    assert least > 0.999, f"rounding to float16 changes an embedding: cosine {least:.5f}"

    write_open_clip_folder(rounded.half(), read_config(folder), given.out, packed=True)
    (given.out / "licences.json").write_text(json.dumps(licences, indent=2, ensure_ascii=False) + "\n", "utf-8")
    size = sum(path.stat().st_size for path in given.out.iterdir())
    assert size <= LIMIT, f"{size / 2**20:.2f} MiB, which is more than {LIMIT / 2**20:g}"
    print(f"{len(ids)} of 49408 token rows used; least cosine {least:.6f}; {size / 2**20:.2f} MiB in {given.out}")


if __name__ == "__main__":
    run(main)
