"""Twenty-four pictures with a caption or two, as a CSV and as tars."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipcond.train.config import TrainConfig

from .pictures import picture, png, said, write_tar


@pytest.fixture(scope="session")
def pairs_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "images").mkdir()
    rows = ["filepath,title"]
    for number in range(24):
        picture(number).save(folder / "images" / f"{number}.png")
        rows += [f'images/{number}.png,"{caption}"' for caption in said(number)]
    path = folder / "pairs.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def pairs_tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two shards; one says its captions in JSON, the other in text files."""
    folder = tmp_path_factory.mktemp("shards")
    first = {f"{n:03d}.png": png(n) for n in range(12)}
    first |= {f"{n:03d}.json": json.dumps({"captions": said(n)}).encode() for n in range(12)}
    second = {}
    for n in range(12, 24):
        second |= {f"part/{n:03d}.txt": said(n)[0].encode(), f"part/{n:03d}.png": png(n)}
    write_tar(folder / "a-0.tar", first)
    write_tar(folder / "a-1.tar", second)
    return folder


@pytest.fixture
def config(dual_folder: Path, pairs_csv: Path, tmp_path: Path) -> TrainConfig:
    """Nine steps of five pairs: two and a quarter epochs, checkpoints in the middle of them."""
    return TrainConfig(
        data=str(pairs_csv), model=str(dual_folder), out=str(tmp_path / "run"), steps=9, batch_size=5,
        learning_rate=1e-3, warmup=2, save_every=3, log_every=2, eval_every=100, threads=1, keep=2,
    )  # fmt: skip
