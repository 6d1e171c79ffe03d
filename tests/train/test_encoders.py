"""Runs of a pipeline's text encoders: their settings by the names of its parts, and second captions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipcond.errors import ConfigError, DataError
from clipcond.train.batches import Batches
from clipcond.train.data import Pairs, read_pairs
from clipcond.train.denoising import of_two_encoders
from clipcond.train.encoders import PairSettings, resolve_encoder
from clipcond.train.loop import train
from clipcond.train.retention import Read
from clipcond.train.second_captions import beside, for_encoder

from .pictures import picture


def test_parts_are_targets() -> None:
    assert resolve_encoder({"target": "sdxl", "encoder": "text_encoder"}) == {"target": "sdxl-l"}
    assert resolve_encoder({"target": "sd3", "encoder": "text_encoder_2"}) == {"target": "sd3-g"}
    assert resolve_encoder({"target": "sdxl-g", "out": "o"}) == {"target": "sdxl-g", "out": "o"}
    found = resolve_encoder({"target": "sdxl", "encoder": "both", "model": "l", "model_2": "g", "out": "o", "steps": 3})
    assert isinstance(found, PairSettings)
    assert found.first == {"target": "sdxl-l", "model": "l", "out": str(Path("o/text_encoder")), "steps": 3}
    assert found.second == {"target": "sdxl-g", "model": "g", "out": str(Path("o/text_encoder_2")), "steps": 3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "sdxl"}, "two text encoders; say with --encoder which trains: text_encoder, text_encoder_2, both"),
        ({"target": "sdxl", "encoder": "clip_l"}, "encoder is 'clip_l', expected text_encoder, text_encoder_2, both"),
        ({"target": "sd15", "encoder": "both"}, "encoder is 'both', which needs target sdxl or sd3"),
        ({"target": "sdxl", "encoder": "both", "model": "l"}, "name that of text_encoder_2 too"),
        ({"target": "sdxl", "encoder": "text_encoder", "model_2": "g"}, "model is what it trains"),
        ({"model_2": "g"}, "only encoder 'both' trains"),
        ({"target": "sd3", "encoder": "both", "model_2": "g", "pipeline": "p"}, "leave out pipeline"),
    ],
)
def test_encoders_that_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_encoder(settings)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three pictures: two rows of the first, the second row of which has no second caption, nor has the third picture."""
    for number in range(3):
        picture(number).save(tmp_path / f"{number}.png")
    rows = ["image,caption,caption_2", "0.png,a,style a", "0.png,b,", "1.png,c,style c", "2.png,d,"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "pairs.csv"


def seconds(pairs: Pairs) -> list[tuple[str, ...]]:
    return [each.seconds for each in pairs.relations]


def test_second_captions_stand_beside_the_first(table: Path) -> None:
    pairs = read_pairs(table)
    assert pairs.captions == [("a", "b"), ("c",), ("d",)]
    assert seconds(pairs) == [("style a", "b"), ("style c",), ()]
    assert [beside(pairs, 0, 0), beside(pairs, 0, 1), beside(pairs, 2, 0)] == ["style a", "b", "d"]
    swapped = for_encoder("sdxl-g", pairs)
    assert swapped.captions == [("style a", "b"), ("style c",), ("d",)]
    assert seconds(swapped) == pairs.captions
    assert [beside(swapped, 0, 0), beside(swapped, 2, 0)] == ["a", "d"]
    assert for_encoder("sdxl-l", pairs) is pairs
    assert seconds(pairs.take([1, 2])) == [("style c",), ()]
    plain = replace(pairs, relations=())
    assert pairs.fingerprint() != plain.fingerprint()
    assert for_encoder("sdxl-g", plain) is plain
    assert beside(plain, 0, 1) == "b"


def test_second_captions_of_json_are_one_or_one_each(table: Path) -> None:
    def read(second: object) -> list[tuple[str, ...]]:
        line = json.dumps({"image": "0.png", "caption": ["a", "b"], "caption_2": second})
        (table.parent / "pairs.jsonl").write_text(line + "\n")
        return seconds(read_pairs(table.parent / "pairs.jsonl"))

    assert read("style") == [("style", "style")]
    assert read(["x", " "]) == [("x", "b")]
    assert read(["", ""]) == read(None) == []
    with pytest.raises(DataError, match="line 1: 2 captions and 3 in caption_2; expected one, or one each"):
        read(["x", "y", "z"])


class Seen:
    """A denoiser of two encoders that keeps what the other one is given."""

    target, width = "sdxl-l", 8

    def __init__(self) -> None:
        self.beside: list[str] = []

    def loss(self, latents: Any, states: Any, pooled: Any, beside: Any, draw: Any) -> torch.Tensor:
        self.beside = list(beside)
        return torch.zeros(())


def test_the_other_encoder_reads_beside_the_drawn_caption(table: Path) -> None:
    pairs = read_pairs(table)
    denoiser = Seen()
    predicts = of_two_encoders(denoiser, pairs)  # type: ignore[arg-type]
    draw, read = torch.Generator(), Read(states=torch.zeros(2, 77, 8), pooled=None)
    for step in range(8):
        batch = Batches(pairs, None, batch_size=3, seed=step)[step]
        predicts(torch.zeros(2, 4), read, batch, draw)
        assert batch.drawn is not None
        rows = zip(batch.rows[:2].tolist(), batch.drawn[:2].tolist(), strict=True)
        assert denoiser.beside == [beside(pairs, row, number) for row, number in rows]
    batch = replace(batch, drawn=None)
    predicts(torch.zeros(2, 4), read, batch, draw)
    assert denoiser.beside == [beside(pairs, row, 0) for row in np.asarray(batch.rows[:2]).tolist()]


def test_a_run_says_what_it_does_with_second_captions(table: Path, dual_folder: Path, tmp_path: Path) -> None:
    def notes(**settings: Any) -> list[str]:
        from clipcond.train.config import TrainConfig

        lines: list[dict[str, Any]] = []
        config = TrainConfig(
            data=str(table), model=str(dual_folder), out=str(tmp_path / str(settings)), steps=1, warmup=0, batch_size=2,
            threads=1, retention_batch=2, **settings,
        )  # fmt: skip
        train(config, report=lines.append)
        return [line["note"] for line in lines if "caption_2" in line.get("note", "")]

    assert notes() == ["caption_2 of the data is for the second text encoder of a pipeline; this run does not read it"]
    (note,) = notes(target="sdxl-g")
    assert note.startswith("sdxl-g trains on caption_2 of the data")
