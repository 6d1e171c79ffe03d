import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clipcond.errors import ConfigError, ModelError
from clipcond.images.preprocess import Preprocess
from clipcond.train.batches import Batches
from clipcond.train.denoising import padded
from clipcond.train.loop import train


class Linear:
    """A denoiser of one matrix: it must tell a picture's mean colour from the states."""

    target, width = "sd15", 64
    preprocess = Preprocess(height=8, width=8, mean=(0.5,) * 3, std=(0.5,) * 3)

    def __init__(self, width=64):
        self.width, self.seen = width, 0

    def latents(self, pixels):
        self.seen += len(pixels)
        return torch.from_numpy(pixels).float().mean(dim=(1, 2)) / 255

    def loss(self, latents, states, draw):
        noise = 0.01 * torch.randn(latents.shape, generator=draw)
        return (states[:, :4].mean(dim=1)[:, :3] - latents - noise).square().mean()


@pytest.fixture
def own(config, dual_folder):
    width = load_file(dual_folder / "open_clip_model.safetensors")["token_embedding.weight"].shape[1]
    return replace(config, pipeline="given", denoise_weight=1.0, denoise_batch=3), Linear(width)


def lines(config):
    return [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]


def test_the_denoising_loss_falls_and_latents_are_made_once(own):
    config, denoiser = own
    train(
        replace(config, steps=60, log_every=20, contrastive=0.0, learning_rate=3e-3, freeze=("image",)),
        denoiser=denoiser,
    )
    losses = [line["terms"]["denoising"] for line in lines(config) if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]
    assert denoiser.seen == 24
    assert any("latents of 24 pictures stored" in line.get("note", "") for line in lines(config))


@pytest.mark.parametrize("adapter", [False, True])
def test_a_run_with_all_terms_resumes_bit_for_bit(own, tmp_path, adapter):
    if adapter:
        pytest.importorskip("peft", reason="adapters are peft's")
    config, denoiser = own
    config = replace(config, target="sd15", retention=1.0, lock_image=True)
    config = replace(config, lora_rank=4, grad_checkpointing=True, ema=0.5) if adapter else config
    whole = replace(config, out=str(tmp_path / "whole"))
    train(whole, denoiser=denoiser)

    def stop(line):
        if line["step"] == 4 and "loss" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, report=stop, denoiser=denoiser)
    train(config, denoiser=denoiser)
    one, other = (load_file(Path(each.out) / "model/open_clip_model.safetensors") for each in (config, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)
    steps = [line for line in lines(config) if "loss" in line]
    assert set(steps[-1]["terms"]) == {"contrastive", "retention", "denoising"}


def test_a_locked_image_tower_is_embedded_once_and_its_pictures_are_not_decoded_again(config, dual_folder, monkeypatch):
    read = []
    whole = Batches.__getitem__
    monkeypatch.setattr(Batches, "__getitem__", lambda self, step: read.append(whole(self, step)) or read[-1])
    train(replace(config, lock_image=True))
    before, after = (
        load_file(dual_folder / "open_clip_model.safetensors"),
        load_file(Path(config.out) / "model/open_clip_model.safetensors"),
    )
    moved = {name for name in after if not torch.equal(after[name], before[name].float())}
    assert moved
    assert not [name for name in moved if name.startswith("visual.")]
    assert read
    assert all(batch.pixels is None for batch in read)
    assert any("features of 24 pictures stored" in line.get("note", "") for line in lines(config))


def test_stored_features_train_to_what_features_of_each_step_train_to(config, tmp_path, monkeypatch):
    stored = replace(config, lock_image=True, out=str(tmp_path / "stored"))
    train(stored)
    from clipcond.train import job

    monkeypatch.setattr(job, "_features", lambda *given: None)
    train(replace(config, freeze=("image",)))
    one, other = (load_file(Path(each.out) / "model/open_clip_model.safetensors") for each in (config, stored))
    for name in one:
        assert torch.allclose(one[name], other[name], atol=2e-4), name


def test_padding_stands_behind_the_first_end_of_text():
    ids = torch.tensor([[49406, 320, 49407, 49407], [49406, 320, 321, 49407]])
    full = padded(ids, 0)
    assert full.shape == (2, 77)
    assert full[0, :5].tolist() == [49406, 320, 49407, 0, 0]
    assert full[1, :5].tolist() == [49406, 320, 321, 49407, 0]
    assert set(padded(ids, 49407)[:, 4:].flatten().tolist()) == {49407}


def test_a_denoiser_that_does_not_fit_is_refused_before_the_first_step(own):
    config, denoiser = own
    with pytest.raises(ConfigError, match="denoise_weight is 1, but no pipeline is named"):
        replace(config, pipeline=None)
    with pytest.raises(ConfigError, match="pipeline is 'given', but denoise_weight is 0"):
        replace(config, denoise_weight=0.0)
    with pytest.raises(ConfigError, match="a denoising loss needs the denoiser itself"):
        train(config)
    with pytest.raises(ConfigError, match="given is a pipeline of sd15, target is sd2"):
        train(replace(config, target="sd2"), denoiser=denoiser)
    with pytest.raises(ModelError, match=r"given reads states of width 7, .* gives"):
        train(config, denoiser=Linear(7))
    with pytest.raises(ConfigError, match=r"features of 24 pictures take .* GiB, cache_gib allows 0"):
        train(replace(config, lock_image=True, cache_gib=0.0), denoiser=denoiser)


def test_unseen_rows_train_alone_in_a_frozen_tower(config, dual_folder, tmp_path):
    from clipcond.models.open_clip_folder import read_open_clip_folder, write_open_clip_folder
    from clipcond.models.trainable import load_trainable
    from clipcond.prompt.tokenizer import batch_ids
    from clipcond.train.data import read_pairs

    first = load_trainable(str(dual_folder))
    words = sorted({number for said in read_pairs(config.data).captions for ids in batch_ids(said) for number in ids})
    unseen, seen = words[::2], words[1::2]
    with torch.no_grad():
        first.model.token_embedding.weight[unseen] = 0
    write_open_clip_folder(first.model, first.config, tmp_path / "start")
    start = load_file(tmp_path / "start/open_clip_model.safetensors")
    config = replace(config, model=str(tmp_path / "start"), freeze=("text",), lock_image=True, unseen_rate=1e-2)
    train(config)
    after = load_file(Path(config.out) / "model/open_clip_model.safetensors")
    moved = (after["token_embedding.weight"] != start["token_embedding.weight"]).any(dim=1).nonzero().flatten().tolist()
    assert moved
    assert set(moved) <= set(unseen)
    assert np.isin(seen, moved).sum() == 0
    others = {name for name in after if not torch.equal(after[name], start[name].float())}
    assert others == {"token_embedding.weight", "text_projection", "logit_scale"}
    assert read_open_clip_folder(Path(config.out) / "model") is not None
