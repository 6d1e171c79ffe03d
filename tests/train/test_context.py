"""A longer text tower: its positions by hand, its training, what reads it, and who is refused it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import clipcond
from clipcond.errors import ConfigError, ModelError
from clipcond.models.load import load_dual
from clipcond.models.trainable import load_trainable
from clipcond.train.config import TrainConfig, from_mapping
from clipcond.train.context import hold_first_positions, lengthen, stretched
from clipcond.train.job import prepare
from clipcond.train.loop import train
from clipcond.train.model import text_features

from .test_loop import same, stop_at, weights
from .test_model import ids

LONG = " ".join(f"{number} red square" for number in range(60))  # 180 tokens and some


def slowly(positions):
    """The stretch by four of Long-CLIP, as its formula stands."""
    out = [positions[i] for i in range(20)]
    for i in range(56):
        out += [((4 - k) * positions[20 + i] + k * positions[21 + i]) / 4 for k in range(4)]
    out += [positions[76] + k * (positions[76] - positions[75]) / 4 for k in range(4)]
    return torch.stack(out)


def test_positions_by_hand():
    squares = (torch.arange(77.0) ** 2)[:, None]
    found = stretched(squares, 4)[:, 0].tolist()
    assert len(found) == 248
    assert found[:21] == [float(number**2) for number in range(21)]
    assert found[21:25] == [410.25, 420.5, 430.75, 441.0]
    assert found[-5:] == [5738.25, 5776.0, 5813.75, 5851.5, 5889.25]
    positions = torch.randn(77, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(stretched(positions, 4), slowly(positions), atol=1e-6)
    assert [len(stretched(positions, factor)) for factor in (1, 2, 3)] == [77, 134, 191]
    assert torch.equal(stretched(positions, 1), positions)


def test_short_texts_are_read_as_before_and_the_first_positions_get_no_gradient(dual_folder):
    short, long = ids(length=20), ids(length=248)
    trainable = load_trainable(str(dual_folder))
    model = trainable.model
    before = text_features(model, short)
    lengthen(trainable, 248, "dual")
    hold_first_positions(model)
    assert torch.equal(text_features(model, short), before)
    with torch.no_grad():
        assert torch.allclose(text_features(model, long), model.encode_text(long, normalize=True), atol=1e-5)
    text_features(model, long)[:, 0].sum().backward()
    moved = model.positional_embedding.grad.abs().amax(dim=1)
    assert float(moved[:20].max()) == 0
    assert float(moved[20:240].min()) > 0
    lengthen(trainable, 248, "dual")  # it is so already
    with pytest.raises(ModelError, match="dual reads 248 positions; context_length stretches 77 of them: leave it out"):
        lengthen(trainable, 134, "dual")


@pytest.fixture(scope="module")
def long_csv(pairs_csv, tmp_path_factory):
    """The pairs with long captions that differ at their end alone."""
    path = tmp_path_factory.mktemp("long") / "pairs.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        rows.writerows([pairs_csv.parent / "images" / f"{number}.png", f"{LONG} {number}"] for number in range(24))
    return path


@pytest.fixture(scope="module")
def trained(dual_folder, long_csv, tmp_path_factory):
    """A run of three steps at 248 positions."""
    config = TrainConfig(
        data=str(long_csv), model=str(dual_folder), out=str(tmp_path_factory.mktemp("run") / "long"), steps=3, batch_size=6,
        learning_rate=1e-2, warmup=1, threads=1, log_every=1, context_length=248, freeze=("image",), alpha="0.5",
    )  # fmt: skip
    train(config)
    return config


def test_a_run_trains_the_positions_behind_the_first_and_says_its_length(trained, dual_folder):
    before = load_file(dual_folder / "open_clip_model.safetensors")["positional_embedding"].float()
    after = weights(trained.out)["positional_embedding"]
    assert torch.equal(after[:20], before[:20])
    assert bool((after[20:190] != stretched(before, 4)[20:190]).any(dim=1).all())
    config = json.loads((Path(trained.out) / "model" / "open_clip_config.json").read_text())
    assert config["model_cfg"]["text_cfg"]["context_length"] == 248
    lines = [json.loads(line) for line in (Path(trained.out) / "log.jsonl").read_text().splitlines()]
    assert [line["cut_captions"] for line in lines if "loss" in line] == [0, 0, 0]


def test_what_stands_beyond_75_tokens_counts(trained, dual_folder, long_csv):
    texts = [f"{LONG} 3", f"{LONG} 4"]
    long, short = load_dual(trained.out), load_dual(str(dual_folder))
    assert (long.texts.content, short.texts.content) == (246, 75)
    assert torch.equal(*short.texts.embed(texts))
    assert not torch.equal(*long.texts.embed(texts))
    assert clipcond.evaluate(long, long_csv).text_to_image.keys() == {1, 5, 10}
    with torch.no_grad():
        model = long.image.model
        (row,) = long.texts.layout.rows(long.texts.chunks(texts)[0])[0]
        rows = torch.tensor([row + [0] * (248 - len(row))])
        assert torch.allclose(long.texts.embed(texts[:1]), model.encode_text(rows, normalize=True), atol=1e-5)


def test_it_goes_on_bit_for_bit_and_a_long_model_trains_on(trained, tmp_path):
    again = replace(trained, out=str(tmp_path / "again"))
    stop_at(again, 2)
    train(again)
    assert same(weights(again.out), weights(trained.out))
    on = replace(trained, model=trained.out, out=str(tmp_path / "on"), context_length=None, alpha=None)
    train(on)
    assert torch.equal(weights(on.out)["positional_embedding"][:20], weights(trained.out)["positional_embedding"][:20])


def test_retention_holds_what_was_before_the_stretch(trained):
    drifts = [
        prepare(replace(trained, context_length=length, target="sd15")).retention.measure().measures()
        for length in (None, 248)
    ]
    assert drifts[0]["padding"] < 1e-6 < drifts[1]["padding"]
    assert drifts[1]["bos"] < 1e-6


@pytest.mark.parametrize("to", ["diffusers", "a1111", "transformers", "comfyui", "open_clip"])
def test_only_readers_that_take_its_length_get_it(trained, to, tmp_path):
    out = tmp_path / ("out.safetensors" if to in ("a1111", "comfyui") else "out")
    into = {"into": "x.safetensors"} if to == "a1111" else {}
    if to in ("diffusers", "a1111"):
        with pytest.raises(
            ModelError, match=f"has 248 positions; {to} pipelines take 77. ComfyUI and transformers take it"
        ):
            clipcond.export(trained.out, to=to, out=out, **into)
        return
    clipcond.export(trained.out, to=to, out=out)
    if to == "transformers":
        assert json.loads((out / "config.json").read_text())["max_position_embeddings"] == 248
        assert json.loads((out / "tokenizer_config.json").read_text())["model_max_length"] == 248
    elif to == "comfyui":
        assert load_file(out)["text_model.embeddings.position_embedding.weight"].shape == (248, 16)
    else:
        assert load_dual(str(out)).texts.content == 246


def test_a_denoiser_of_77_positions_is_refused(trained):
    config = replace(trained, pipeline="mini", denoise_weight=1.0)
    with pytest.raises(ModelError, match="mini reads 77 positions, the text tower has 248; leave one of them out"):
        prepare(config, SimpleNamespace(target="sd15", width=16))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"context_length": 200}, "context_length is 200, expected 134, 191, 248: the first 20 of 77"),
        ({"context_length": 248, "lora_rank": 4}, "context_length stretches positions, which no adapter holds"),
    ],
)
def test_settings_that_make_no_sense(changes, said):
    with pytest.raises(ConfigError, match=said):
        from_mapping({"data": "a.csv", "model": "mini", "out": "run", **changes})
