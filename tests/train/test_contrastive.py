"""Losses and their settings in whole runs: what the data say beside pairs, a teacher, batches beyond the memory."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clipcond.errors import ConfigError, DataError
from clipcond.models.load import load_dual
from clipcond.models.open_clip_folder import read_open_clip_folder
from clipcond.train import contrastive
from clipcond.train.data import read_pairs
from clipcond.train.job import prepare
from clipcond.train.loop import train

from .pictures import picture, said


def lines(out):
    return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


def weights(out):
    return load_file(Path(out) / "model" / "open_clip_model.safetensors")


@pytest.fixture
def related_csv(tmp_path):
    """Twelve pictures: all have a wrong caption, some a wrong picture, the first four one group."""
    rows = ["image,caption,negative,negative_image,group"]
    for number in range(12):
        picture(number).save(tmp_path / f"{number}.png")
        wrong = f"{(number + 1) % 12}.png" if number % 3 == 0 else ""
        group = "first" if number < 4 else ""
        rows.append(f'{number}.png,"{said(number)[0]}",no square at all {number},{wrong},{group}')
    (tmp_path / "related.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "related.csv"


@pytest.fixture
def related(config, related_csv):
    return replace(config, data=str(related_csv), batch_size=12, steps=2, warmup=0, log_every=1)


def test_columns_of_negatives_and_groups_are_read(related_csv):
    pairs = read_pairs(related_csv)
    assert pairs.relations[0].negatives == ("no square at all 0",)
    assert [source.path.name for source in pairs.relations[3].negative_images] == ["4.png"]
    assert pairs.relations[1].negative_images == ()
    assert [bool(each.groups) for each in pairs.relations] == [True] * 4 + [False] * 8
    assert pairs.take([3]).relations == [pairs.relations[3]]
    other = related_csv.with_name("other.csv")
    other.write_text(related_csv.read_text().replace("no square at all 5", "another"))
    assert read_pairs(other).fingerprint() != pairs.fingerprint()
    other.write_text(related_csv.read_text().replace("4.png,first", "gone.png,first"))
    with pytest.raises(DataError, match=r"line 5: .*gone\.png does not exist"):
        read_pairs(other)


def test_json_lines_take_lists_and_numbers(tmp_path):
    for number in range(2):
        picture(number).save(tmp_path / f"{number}.png")
    record = {"image": "0.png", "caption": "x", "negatives": ["y", "z"], "negative_image": "1.png", "group_id": 7}
    (tmp_path / "p.jsonl").write_text(json.dumps(record) + '\n{"image": "1.png", "caption": "w"}\n')
    first, second = read_pairs(tmp_path / "p.jsonl").relations
    assert (first.negatives, first.groups, len(first.negative_images)) == (("y", "z"), ("7",), 1)
    assert second.negatives == second.groups == second.negative_images == ()
    (tmp_path / "p.jsonl").write_text(json.dumps({**record, "negatives": [1]}))
    with pytest.raises(DataError, match=r"line 1: negative is \[1\], expected a text or a list of texts"):
        read_pairs(tmp_path / "p.jsonl")


def test_hard_negatives_and_groups_reach_the_loss_and_the_log(related, monkeypatch):
    whole, seen = contrastive.info_nce, []

    def watched(*features, **settings):
        seen.append(settings)
        return whole(*features, **settings)

    monkeypatch.setattr(contrastive, "info_nce", watched)
    train(replace(related, positives="count", label_smoothing=0.1))
    settings = seen[0]
    assert settings["extra_texts"].shape[0] == 12
    assert settings["extra_images"].shape[0] == 4
    assert settings["extra_texts"].requires_grad
    assert (settings["positives"], settings["label_smoothing"]) == ("count", 0.1)
    same = settings["matches"].block(slice(0, 16), 24)
    assert same[:12, :12].sum() - same[:12, :12].diagonal().sum() == 4 * 3, "the group"
    assert same[12:, :12].sum() == 4, "each wrong picture is the right one of another row"
    notes = [line["note"] for line in lines(related.out) if line.get("event") == "note"]
    assert (
        "of 12 images 4 name a group, 12 bring hard negative captions, 4 bring hard negative pictures; "
        "within a batch a pair of one group counts as positive"
    ) in notes


@pytest.mark.parametrize("changes", [{}, {"loss": "siglip"}])
def test_a_cached_step_and_one_in_strips_equal_the_whole(related, changes, tmp_path):
    """One step of SGD in effect: the gradients themselves."""
    found = {}
    for name, way in {"whole": {}, "cached": {"grad_cache": 5}, "strips": {"chunk_size": 2}}.items():
        job = prepare(replace(related, **changes, **way, out=str(tmp_path / name)))
        losses = job.objective.backward(job.batches[0])
        grads = {n: p.grad for n, p in job.model.named_parameters() if p.grad is not None}
        found[name] = losses.total, {n: g.to_dense() if g.is_sparse else g for n, g in grads.items()}
    for name in ("cached", "strips"):
        assert found[name][0] == pytest.approx(found["whole"][0], rel=1e-6)
        assert found[name][1].keys() == found["whole"][1].keys()
        for each, there in found["whole"][1].items():
            here = found[name][1][each]
            assert (here - there).norm() <= 1e-5 * max(there.norm(), 1e-3), (name, each)


def test_a_sigmoid_run_brings_its_bias_along_and_goes_on_with_it(related, tmp_path):
    whole = replace(related, loss="siglip", steps=4, out=str(tmp_path / "whole"))
    train(whole)
    parts = replace(whole, out=str(tmp_path / "parts"), save_every=2)

    def stop(line):
        if line["step"] == 2 and "loss" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    assert train(parts, report=stop).interrupted
    train(parts)
    assert all(torch.equal(value, weights(parts.out)[name]) for name, value in weights(whole.out).items())
    model = read_open_clip_folder(Path(whole.out) / "model")
    bias, scale = float(model.logit_bias.detach()), float(model.logit_scale.detach().exp())
    assert bias == pytest.approx(-10, abs=0.1)
    assert bias != -10
    assert scale == pytest.approx(10, rel=0.1)
    assert load_dual(whole.out).logit_scale == pytest.approx(scale)
    assert all("logit_bias" in line for line in lines(whole.out) if "loss" in line)


def test_a_teacher_is_asked_once_and_followed(config, dual_folder, tmp_path, monkeypatch):
    with_teacher = replace(config, teacher=str(dual_folder), contrastive=0.0, steps=3, warmup=0, log_every=1)
    train(with_teacher)
    first, *_ = [line for line in lines(config.out) if "loss" in line]
    assert set(first["terms"]) == {"distillation"}
    assert first["terms"]["distillation"] == pytest.approx(0, abs=1e-5), "the student starts as its teacher"
    stored = Path(config.out) / "teacher.safetensors"
    assert load_file(stored)["images"].shape[0] == 24

    def refuse(_):
        raise AssertionError("the teacher is loaded again")

    monkeypatch.setattr("clipcond.models.load.load_dual", refuse)
    given = replace(with_teacher, teacher=str(stored), init="random", out=str(tmp_path / "other"))
    train(given)
    assert next(line for line in lines(given.out) if "loss" in line)["terms"]["distillation"] > 1e-3
    assert not (tmp_path / "other" / "teacher.safetensors").exists()
    with pytest.raises(ConfigError, match=r"teacher .*teacher\.safetensors was made of other pairs or pictures; name"):
        train(replace(given, val_count=4, out=str(tmp_path / "third")))


def test_the_rows_of_a_batch_get_the_embeddings_of_their_own_captions(config, dual_folder):
    config = replace(config, teacher=str(dual_folder))
    job = prepare(config)
    Path(config.out).mkdir()
    (teacher,) = job.stores
    teacher.fill()
    batch = job.batches[0]
    images, texts = teacher.of(batch.rows, batch.drawn)
    from clipcond.train.model import image_features, text_features

    with torch.no_grad():
        ids = torch.from_numpy(np.ascontiguousarray(batch.ids))
        assert torch.allclose(texts, text_features(job.model, ids), atol=1e-5)
        pixels = job.objective._towers.normalise(batch.pixels, torch.device("cpu"))
        assert torch.allclose(images, image_features(job.model, pixels.contiguous()), atol=1e-5)
