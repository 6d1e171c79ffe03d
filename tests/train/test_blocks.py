"""Blocks that are computed again or compiled, and float16: the same gradients, and what is left out of a step."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from clipcond.errors import ConfigError
from clipcond.models.open_clip_folder import read_open_clip_folder
from clipcond.train import blocks, job, loss_scaling
from clipcond.train.blocks import checkpoint_blocks, compile_blocks
from clipcond.train.job import prepare
from clipcond.train.loop import train
from clipcond.train.lora import Adapter
from clipcond.train.loss_scaling import LossScaling
from clipcond.train.model import image_features, text_features
from clipcond.train.retention import TargetReader

from .test_loop import lines, same, stop_at, weights
from .test_model import ids


@pytest.fixture
def model(dual_folder):
    return read_open_clip_folder(dual_folder).train()


def gradients(model, reader=None):
    """Of both towers' features, and of what a target reads."""
    model.zero_grad()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (image_features(model, pixels)[:, 0].sum() + text_features(model, ids(3))[:, 0].sum()).backward()
    (reader or TargetReader(model, "sd15", "dual"))(ids(2)).states[..., 0].sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def counted(model):
    """Count how often each block of both towers computes its first norm."""
    counts = dict.fromkeys(["text", "image"], 0)
    for name, tower in (("text", model), ("image", model.visual)):
        for block in tower.transformer.resblocks:
            block.ln_1.register_forward_hook(lambda *_, name=name: counts.update({name: counts[name] + 1}))
    return counts


@pytest.mark.parametrize("adapter", [False, True])
def test_blocks_computed_again_give_the_same_bits(model, adapter):
    if adapter:
        Adapter(model, rank=2, alpha=2.0, targets=("attn", "mlp"))
    plain = gradients(model)
    other, counts = copy.deepcopy(model), counted(model)
    gradients(model)
    once = dict(counts)
    assert checkpoint_blocks(model) is None
    counts.update(text=0, image=0)
    found = gradients(model)
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], value) for name, value in plain.items())
    assert counts == {"text": 2 * once["text"], "image": once["image"] * (1 if adapter else 2)}
    assert same(model.state_dict(), other.state_dict())


def test_a_run_goes_on_with_blocks_computed_again(config, tmp_path):
    config = replace(config, steps=4, save_every=2, train_blocks=1)
    whole = replace(config, out=str(tmp_path / "whole"))
    train(whole)
    train(replace(config, steps=4, grad_checkpointing=True))
    assert same(weights(config.out), weights(whole.out))


def test_an_image_tower_without_blocks_is_noted():
    model = nn.Module()
    model.transformer, model.visual = nn.Module(), nn.Linear(2, 2)
    assert checkpoint_blocks(model) == "grad_checkpointing does not reach the image tower, a Linear without blocks"
    model.visual.requires_grad_(False)
    assert checkpoint_blocks(model) is None


def test_blocks_are_compiled_below_what_computes_them_again(model, monkeypatch):
    compiled = []

    def compile_stub(forward, **how):
        assert how == {"dynamic": True}

        def run(*args, **kwargs):
            compiled.append(forward.__self__)
            return forward(*args, **kwargs)

        return run

    monkeypatch.setattr(torch, "compile", compile_stub)
    plain = gradients(model)
    model.visual.requires_grad_(False)
    compile_blocks(model, torch.device("cpu"))
    checkpoint_blocks(model)
    found = gradients(model)
    assert all(torch.equal(found[name], plain[name]) for name in found)
    assert set(compiled) == set(model.transformer.resblocks)
    monkeypatch.setattr(blocks.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"compile needs a C\+\+ compiler on a CPU"):
        compile_blocks(model, torch.device("cpu"))


def test_float16_is_refused_on_a_cpu(config):
    with pytest.raises(
        ConfigError, match="precision is 'fp16', which needs an NVIDIA or AMD GPU, and the device is cpu; bf16"
    ):
        prepare(replace(config, precision="fp16", device="cpu"))


def test_a_step_that_overflows_is_left_out_and_the_scale_goes_on(config, monkeypatch, tmp_path):
    """On the CPU, which computes float16 too, if slowly."""
    monkeypatch.setattr(job, "check_precision", lambda *_: None)
    config = replace(config, steps=6, save_every=3, precision="fp16", grad_cache=2, log_every=1)
    whole = replace(config, out=str(tmp_path / "whole"))

    def scaling(parameters, device):
        made = LossScaling(parameters, device)
        made.load_state_dict(made.state_dict() | {"scale": 2.0**20})  # too large for the first steps
        return made

    monkeypatch.setattr(job, "LossScaling", scaling)
    train(whole)
    notes = [line["note"] for line in lines(whole.out) if "overflowed" in line.get("note", "")]
    assert notes[0] == f"a step overflowed and is left out; the loss is scaled by {2.0**19:g} from now on"
    assert 1 <= len(notes) <= 4, "some steps are taken"
    stop_at(config, 3)
    train(config)
    assert same(weights(config.out), weights(whole.out))


def test_scaled_gradients_are_those_of_float32(config, monkeypatch):
    exact = prepare(config)
    exact.objective.backward(exact.batches[0])
    monkeypatch.setattr(job, "check_precision", lambda *_: None)
    half = prepare(replace(config, precision="fp16"))
    half.objective.backward(half.batches[0])
    seen = []
    assert half.scaling.take_step(lambda: seen.append(True))
    assert seen == [True]
    for (name, one), two in zip(exact.model.named_parameters(), half.model.parameters(), strict=True):
        if one.grad is not None and one.grad.norm() > 1e-4:
            wrong = (one.grad - two.grad).to_dense() if one.grad.is_sparse else one.grad - two.grad
            assert wrong.norm() / one.grad.norm() < 0.1, name


def test_gradients_that_no_scale_saves_end_the_run():
    parameter = nn.Parameter(torch.ones(2))
    scaling = LossScaling([parameter], torch.device("cpu"))
    scaling.load_state_dict(scaling.state_dict() | {"scale": 1.0})
    scaling.scaled(parameter.sum() * float("inf")).backward()
    with pytest.raises(ConfigError, match="gradients overflow float16 at any scale; use bf16"):
        scaling.take_step(lambda: pytest.fail("it must be left out"))
    assert loss_scaling.check_precision("fp16", torch.device("cuda")) is None
