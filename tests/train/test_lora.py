"""Adapters on the text tower: what trains, what is kept of it, the merged model, and the file as diffusers reads it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from clipcond.encode.text import TextTower
from clipcond.errors import ConfigError
from clipcond.models.export import text_outputs
from clipcond.models.load import load_dual
from clipcond.models.lora_outline import outline_lora
from clipcond.models.open_clip_folder import read_open_clip_folder
from clipcond.models.text_encoder import load_text_encoder
from clipcond.train import checkpoints
from clipcond.train.config import from_mapping
from clipcond.train.job import prepare
from clipcond.train.loop import train
from clipcond.train.lora import Adapter, lora_place, write_lora
from clipcond.train.model import text_features
from clipcond.train.risks import risks

from .test_loop import same, stop_at, weights
from .test_model import ids

pytest.importorskip("peft", reason="adapters are peft's")


@pytest.fixture
def config(config):
    return replace(config, steps=5, learning_rate=2e-2, warmup=1, lora_rank=3, lora_alpha=6.0, save_every=2)


@pytest.fixture
def model(dual_folder):
    return read_open_clip_folder(dual_folder)


def adapted(model, **changes):
    """A model with an adapter that changes something."""
    settings = {"rank": 3, "alpha": 6.0, "targets": ("attn", "mlp")} | changes
    adapter = Adapter(model, **settings)
    with torch.no_grad():
        for name, value in adapter.state_dict().items():
            if "lora_B" in name:
                value.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
    return adapter


def test_an_adapter_begins_without_a_change_and_is_all_that_trains(model):
    before = text_features(model, ids()).detach()
    adapter = Adapter(model, rank=3, alpha=6.0, targets=("attn", "mlp"))
    assert torch.allclose(text_features(model, ids()), before, atol=1e-6)
    trains = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert trains.keys() == adapter.state_dict().keys()
    assert sum(trains.values()) == 1 + 2 * 3 * (4 * (16 + 16) + 2 * (16 + 64))
    assert all("lora_" in name for name in trains if name != "logit_scale")


@pytest.mark.parametrize("changes", [{}, {"targets": ("mlp",)}, {"targets": ("attn",), "blocks": 1}])
def test_the_merged_model_gives_what_the_adapter_gave(model, changes):
    plain = {name: value.clone() for name, value in model.state_dict().items()}
    adapter = adapted(model, **changes)
    with_adapter = text_features(model, ids()), text_outputs(TextTower.from_open_clip(model))
    factors = adapter.merge()
    assert model.state_dict().keys() == plain.keys()
    assert type(model.transformer.resblocks[0].attn) is nn.MultiheadAttention
    assert torch.allclose(text_features(model, ids()), with_adapter[0], atol=1e-5)
    for name, value in text_outputs(TextTower.from_open_clip(model)).items():
        assert torch.allclose(value, with_adapter[1][name], atol=1e-5), name
    moved = {
        name.split("resblocks.")[1] for name, value in model.state_dict().items() if not torch.equal(value, plain[name])
    }
    blocks, targets = range(2)[-changes.get("blocks", 2) :], changes.get("targets", ("attn", "mlp"))
    layers = {"attn": ("attn.in_proj_weight", "attn.out_proj.weight"), "mlp": ("mlp.c_fc.weight", "mlp.c_proj.weight")}
    assert moved == {f"{block}.{name}" for block in blocks for target in targets for name in layers[target]}
    if "attn" in targets:  # the key's third of the joint matrix
        down, up = factors.layers[1, "self_attn_k_proj"]
        change = (model.state_dict()[(name := "transformer.resblocks.1.attn.in_proj_weight")] - plain[name])[16:32]
        assert torch.allclose(change, 2.0 * up @ down, atol=1e-5)


def test_diffusers_reads_the_file_as_the_merged_encoder(model, dual_folder, sd_pipe, tmp_path):
    from diffusers import StableDiffusionPipeline

    write_lora(tmp_path / "a.safetensors", adapted(model).merge(), lora_place(model, "sd15"), strength=0.5)
    before = load_text_encoder(str(dual_folder))
    encoder = _transformers(before)
    pipe = StableDiffusionPipeline(**(sd_pipe.components | {"text_encoder": encoder}), requires_safety_checker=False)
    pipe.load_lora_weights(tmp_path / "a.safetensors")
    found = text_outputs(TextTower.from_transformers(pipe.text_encoder))
    after, plain = (
        text_outputs(TextTower.from_open_clip(each)) for each in (half_way(model, dual_folder), before.module)
    )
    for name, value in found.items():
        assert torch.allclose(value, after[name], atol=1e-5), name
    assert float((after["last_hidden_state"] - plain["last_hidden_state"]).abs().max()) > 0.1


def half_way(model, dual_folder):
    """The merged model, half of the way back to its start."""
    start, end = read_open_clip_folder(dual_folder).state_dict(), model.state_dict()
    model.load_state_dict({name: torch.lerp(start[name], end[name], 0.5) for name in end})
    return model


def _transformers(encoder):
    from clipcond.models.text_encoder import build_text_model

    state = {name: value for name, value in encoder.state().items() if name != "text_projection.weight"}
    return build_text_model("the encoder", encoder.config, state)


def test_the_file_says_what_it_is_and_leaves_out_what_a_pipeline_has_not(model, tmp_path):
    factors = adapted(model).merge()
    write_lora(tmp_path / "a.safetensors", factors, lora_place(model, "sdxl-g", pipeline_layers=1))
    outline = outline_lora(tmp_path / "a.safetensors")
    (part,) = outline.parts.items()
    assert (part[0], part[1].modules, dict(part[1].ranks), part[1].scales) == ("text_encoder_2", 6, {3: 6}, (2.0, 2.0))
    assert outline.ignored == ()
    assert all(
        name.startswith("lora_te2_text_model_encoder_layers_0_") for name in load_file(tmp_path / "a.safetensors")
    )


def test_a_run_keeps_its_adapter_alone_goes_on_bit_for_bit_and_ends_in_a_whole_model(config, dual_folder, tmp_path):
    config = replace(config, target="sd15", retention=0.1, retention_batch=4, alpha="0.5")
    whole = replace(config, out=str(tmp_path / "whole"), save_every=100)
    train(whole)
    stop_at(config, 3)
    kept = checkpoints.read(checkpoints.existing(Path(config.out) / "checkpoints")[-1])
    assert sum(value.numel() for value in kept.model.values()) == 1 + 2 * 3 * (4 * 32 + 2 * 80)
    train(config)
    assert same(weights(config.out), weights(whole.out))
    assert same(*(load_file(Path(each.out) / "lora.safetensors") for each in (config, whole)))
    before, after = load_file(dual_folder / "open_clip_model.safetensors"), weights(config.out)
    moved = {name for name in after if not torch.equal(after[name], before[name].float())}
    assert moved == {"logit_scale", *(name for name in after if "resblocks" in name and name.startswith("transformer")
                                      and name.endswith("weight") and "ln_" not in name)}  # fmt: skip
    file = load_file(Path(config.out) / "lora.safetensors")
    name = "lora_te_text_model_encoder_layers_1_mlp_fc1"
    change = file[f"{name}.lora_up.weight"] @ file[f"{name}.lora_down.weight"] * file[f"{name}.alpha"] / 3
    name = "transformer.resblocks.1.mlp.c_fc.weight"
    assert torch.allclose(after[name] - before[name].float(), change, atol=1e-6)
    assert float(change.abs().max()) > 1e-3
    assert load_dual(config.out).text.layers == 2


def test_other_weights_under_an_adapter_are_refused(config, dual_folder, tmp_path):
    copy = tmp_path / "model"
    copy.mkdir()
    for path in dual_folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    config = replace(config, model=str(copy), steps=2)
    train(config)
    state = load_file(copy / "open_clip_model.safetensors")
    save_file(state | {"positional_embedding": state["positional_embedding"] * 2}, copy / "open_clip_model.safetensors")
    with pytest.raises(ConfigError, match=r"step-00000002\.pt was made with other settings: the weights of .*model"):
        train(config)


def test_the_temperature_can_stay(config):
    adapter = prepare(replace(config, freeze=("temperature",), train_blocks=1)).adapter
    assert adapter is not None
    assert all(name.startswith("transformer.resblocks.1.") for name in adapter.state_dict())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_alpha": 4}, "lora_alpha is given, but no lora_rank"),
        ({"lora_targets": "attn"}, "lora_targets is given, but no lora_rank"),
        ({"lora_rank": 4, "lora_targets": "attn,mpl"}, "lora_targets is 'attn,mpl', expected attn, mlp or attn,mlp"),
        ({"lora_rank": 0}, "lora_rank is 0, expected a number above 0"),
        ({"lora_rank": 4, "freeze": "text"}, "lora_rank is 4, and freeze holds text"),
        ({"lora_rank": 4, "unseen_rate": 0.1}, "unseen_rate trains token rows, which no adapter holds"),
        ({"lora_rank": 4, "init": "random"}, "init is random, and an adapter changes weights that are there"),
        ({"lora_rank": 4, "random_crop": 0.9}, "need an image tower that trains"),
    ],
)
def test_settings_that_do_not_go_together(changes, said):
    with pytest.raises(ConfigError, match=said):
        from_mapping({"data": "a.csv", "model": "mini", "out": "run", **changes})


def test_targets_are_read_from_a_line_and_a_low_rate_is_noted():
    given = {"data": "a.csv", "model": "mini", "out": "run", "lora_rank": 4, "lora_targets": "attn, mlp"}
    assert from_mapping(given).lora_targets == ("attn", "mlp")
    assert risks(from_mapping(given), 2) == ("learning_rate is 1e-05: adapters usually train at 1e-4 to 1e-3",)
    assert risks(from_mapping(given | {"learning_rate": 5e-4}), 2) == ()


def test_without_peft_one_line_says_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'clipcond\[lora\]'"):
        Adapter(model, rank=3, alpha=3.0, targets=("attn",))
