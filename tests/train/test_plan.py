"""The plan of a run beside what a real model keeps, and the arithmetic of its parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clipcond.errors import ModelError
from clipcond.models.trainable import load_trainable
from clipcond.train.config import TrainConfig
from clipcond.train.footprint import Footprint, footprint
from clipcond.train.lora import adapter_of
from clipcond.train.model import freeze, image_features, text_features, use_plain_attention
from clipcond.train.optimizer import Optimizer
from clipcond.train.plan import group_lengths, memory_of, that_fits

ROWS, LENGTH = 8, 20


def kept_by(model: Any, forward: Any) -> int:
    """The bytes that a real forward pass keeps, the weights apart."""
    own = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes(), value
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        graph = forward()
    assert graph is not None
    return sum(size for place, (size, _) in kept.items() if place not in own)


@pytest.mark.parametrize("settings", [{}, {"precision": "bf16"}, {"train_blocks": 1}], ids=str)
def test_what_is_kept_for_the_backward_pass_is_what_a_real_model_keeps(
    dual_folder: Path, settings: dict[str, Any]
) -> None:
    config = TrainConfig(data="", model=str(dual_folder), out="", **settings)
    found = footprint(config, on_cpu=True)
    model = load_trainable(str(dual_folder)).model
    freeze(model, (), text_blocks=config.train_blocks)
    use_plain_attention(model)
    ids = torch.full((ROWS, LENGTH), 400)
    ids[:, 0], ids[:, -1] = 49406, 49407
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
        image = kept_by(model, lambda: image_features(model, torch.zeros(ROWS, 3, 32, 32)))
        text = kept_by(model, lambda: text_features(model, ids))
    assert ROWS * found.image_pair + found.any_image == pytest.approx(image, rel=0.01)
    projection = 2 * ROWS * found.pooled * 4 + ROWS * found.width * 4  # behind the tower, and not counted
    assert found.text_bytes(np.full(ROWS, LENGTH)) == pytest.approx(text - projection, rel=0.01)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("changes", [{}, {"lora_targets": ("attn",), "train_blocks": 1, "freeze": ("temperature",)}])
def test_an_adapter_is_counted_as_it_is_and_keeps_about_what_the_tower_would(
    dual_folder: Path, changes: dict[str, Any]
) -> None:
    pytest.importorskip("peft", reason="adapters are peft's")
    config = TrainConfig(data="", model=str(dual_folder), out="", lora_rank=3, **changes)
    found = footprint(config, on_cpu=True)
    model = load_trainable(str(dual_folder)).model
    adapter = adapter_of(config, model)
    assert adapter is not None
    assert found.trained == sum(value.numel() for value in adapter.state_dict().values())
    use_plain_attention(model)
    ids = torch.full((ROWS, LENGTH), 400)
    ids[:, 0], ids[:, -1] = 49406, 49407
    kept = kept_by(model, lambda: text_features(model, ids))
    assert 0.6 < kept / found.text_bytes(np.full(ROWS, LENGTH)) < 1.3
    assert found.image_pair == 0


def test_blocks_that_are_computed_again_leave_their_input_and_one_of_them_all(
    found: Footprint, dual_folder: Path
) -> None:
    config = TrainConfig(data="", model=str(dual_folder), out="", grad_checkpointing=True)
    less = footprint(config, on_cpu=False)
    assert 0.5 < less.image_pair / found.image_pair < 0.75  # one of two blocks
    lengths = np.full(8, 20)
    assert 0.5 < less.text_bytes(lengths) / found.text_bytes(lengths) < 0.75
    assert less.trained == found.trained


def test_the_optimizer_takes_what_is_planned(dual_folder: Path) -> None:
    config = TrainConfig(data="", model=str(dual_folder), out="")
    model = load_trainable(str(dual_folder)).model
    optimizer = Optimizer(model, config)
    image, text = torch.zeros(2, 3, 32, 32), torch.tensor([[49406, 9, 49407]] * 2)
    (image_features(model, image).sum() + text_features(model, text).sum() + model.logit_scale).backward()
    optimizer.step(1e-3)
    states = [state for part in optimizer.parts for state in part.state.values()]
    size = sum(
        value.numel() * 4 for state in states for value in state.values() if torch.is_tensor(value) and value.ndim
    )
    planned = memory_of(config, footprint(config, on_cpu=True), np.array([20]), gpus=0)
    assert planned.optimizer == pytest.approx(size, rel=1e-4)
    assert planned.weights == 4 * sum(p.numel() for p in model.parameters())


@pytest.fixture(scope="module")
def found(dual_folder: Path) -> Footprint:
    return footprint(TrainConfig(data="", model=str(dual_folder), out=""), on_cpu=False)


LENGTHS = np.arange(5, 40)


def test_parts_of_a_batch_follow_from_its_share_and_its_parts(found: Footprint) -> None:
    config = TrainConfig(data="", model="x", out="", batch_size=64)
    whole, half = (memory_of(config, found, LENGTHS, gpus=gpus) for gpus in (1, 2))
    assert half.activations == pytest.approx(whole.activations / 2, rel=0.1)
    assert (half.weights, half.optimizer) == (whole.weights, whole.optimizer)
    assert whole.peak == whole.weights + whole.optimizer + whole.base + max(
        whole.activations + whole.losses, whole.gradients
    )
    cached = memory_of(replace(config, grad_cache=8), found, LENGTHS, gpus=1)
    assert cached.activations == max(
        8 * found.image_pair + found.any_image, found.text_bytes(group_lengths(LENGTHS, 8))
    )
    assert cached.peak == pytest.approx(sum(cached.parts().values()))
    on_cpu = memory_of(replace(config, batch_size=2), found, LENGTHS, gpus=0)
    assert on_cpu.peak == on_cpu.weights + on_cpu.optimizer + on_cpu.base + max(
        on_cpu.activations + on_cpu.losses, on_cpu.gradients
    )
    locked = memory_of(replace(config, lock_image=True, ema=0.9), found, LENGTHS, gpus=1)
    assert locked.activations == found.text_bytes(group_lengths(LENGTHS, 64))
    assert locked.average == 4 * found.trained
    held = memory_of(replace(config, target="sd15", retention=1.0, retention_batch=9), found, LENGTHS, gpus=1)
    assert held.retention == found.text_bytes(np.full(10, 77))


def test_captions_of_a_batch_go_in_groups_cut_to_their_longest() -> None:
    assert group_lengths(np.array([30]), 5).tolist() == [30] * 5
    grouped = group_lengths(LENGTHS, 130)
    assert len(grouped) == 130
    assert len(set(grouped.tolist())) <= 3
    assert grouped.max() <= 39


def test_what_would_fit_fits_and_its_double_does_not(found: Footprint) -> None:
    config = TrainConfig(data="", model="x", out="", batch_size=4096)
    room = 1.02 * memory_of(replace(config, grad_cache=512), found, LENGTHS, gpus=1).peak
    assert memory_of(config, found, LENGTHS, gpus=1).peak > room
    changes = list(that_fits(config, found, LENGTHS, gpus=1, room=room))
    assert [name for name, _, _ in changes] == ["grad_cache", "batch_size"]
    for name, value, peak in changes:
        assert peak <= room < memory_of(replace(config, **{name: 2 * value}), found, LENGTHS, gpus=1).peak
    assert [name for name, _, _ in that_fits(config, replace(found, batch_norm=True), LENGTHS, gpus=1, room=room)] == [
        "batch_size"
    ]
    assert list(that_fits(config, found, LENGTHS, gpus=1, room=1.0)) == []
    assert all(
        value % 6 == 0 for _, value, _ in that_fits(replace(config, batch_size=96), found, LENGTHS, gpus=6, room=0)
    )


def test_models_that_cannot_be_trained_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model 'ViT-Q-9': .* open_clip knows no 'ViT-Q-9'"):
        footprint(TrainConfig(data="", model="ViT-Q-9", out=""), on_cpu=False)
    with pytest.raises(ModelError, match="no such folder"):
        footprint(TrainConfig(data="", model=str(tmp_path), out=""), on_cpu=False)
