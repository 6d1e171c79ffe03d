"""Fingerprints: the same for the same model anywhere, another one after any change, and quick when nothing changed."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import pytest
import torch
from encoders import clip_model, open_clip_model
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clipcond.encode import fingerprint
from clipcond.encode.fingerprint import Fingerprint
from clipcond.encode.text import TextTower


@pytest.fixture
def model() -> nn.Module:
    return clip_model()


def layer(model: nn.Module) -> nn.Module:
    return getattr(model, "text_model", model).encoder.layers[0].self_attn.q_proj


def test_equal_models_have_equal_fingerprints(model: nn.Module) -> None:
    assert Fingerprint(model)() == Fingerprint(clip_model())() == TextTower.from_transformers(model).fingerprint()
    assert Fingerprint(open_clip_model())() == TextTower.from_open_clip(open_clip_model()).fingerprint()
    assert Fingerprint(model)() != Fingerprint(clip_model(projection=False))()


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_the_settings_of_a_models_parts_count(part: str) -> None:
    from transformers import CLIPConfig, CLIPModel

    width = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = {"text_config": width, "vision_config": {**width, "image_size": 8, "patch_size": 8}, "projection_dim": 4}
    model = CLIPModel(CLIPConfig(**config))
    other = CLIPModel(CLIPConfig(**{**config, part: {**config[part], "hidden_act": "gelu"}}))  # type: ignore[dict-item]
    other.load_state_dict(model.state_dict())
    assert Fingerprint(model)() != Fingerprint(other)()


def test_nested_and_flat_text_models_are_one(model: nn.Module) -> None:
    flat = clip_model(projection=False)
    nested = nn.Module()
    nested.text_model, nested.config = flat, flat.config
    assert Fingerprint(nested)() == Fingerprint(flat)()


def shift(model: nn.Module) -> None:
    with torch.no_grad():
        layer(model).weight[3, 5] += 0.01


def exchange(model: nn.Module) -> None:
    with torch.no_grad():
        weight = layer(model).weight
        weight[[2, 3]] = weight[[3, 2]]


def behind_its_back(model: nn.Module) -> None:
    layer(model).weight.data.mul_(1.5)


def replace(model: nn.Module) -> None:
    layer(model).weight = nn.Parameter(layer(model).weight.detach() * 1.5)


def swap_data(model: nn.Module) -> None:
    layer(model).weight.data = layer(model).weight.detach() * 1.5


def halve(model: nn.Module) -> None:
    model.half()


def add_a_token(model: nn.Module) -> None:
    model.resize_token_embeddings(49409, mean_resizing=False)


def set_an_added_token(model: nn.Module) -> None:
    model.get_input_embeddings().weight.data[-1] = 7.0


def other_activation(model: nn.Module) -> None:
    model.config.hidden_act = "gelu"


CHANGES = [shift, exchange, behind_its_back, replace, swap_data, halve, add_a_token, set_an_added_token]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen(model: nn.Module, change: Callable[[nn.Module], None]) -> None:
    of = Fingerprint(model)
    before = of()
    assert of() == before
    change(model)
    after = of()
    assert after != before
    assert after == of() == Fingerprint(model)()


def test_settings_that_no_weight_shows_count(model: nn.Module) -> None:
    before = Fingerprint(model)()
    other_activation(model)
    assert Fingerprint(model)() != before


def test_a_change_that_is_undone_is_forgotten(model: nn.Module) -> None:
    of = Fingerprint(model)
    before, weight = of(), layer(model).weight.detach().clone()
    behind_its_back(model)
    of()
    layer(model).weight.data.copy_(weight)
    assert of() == before


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")  # a second adapter is meant
def test_adapters_and_their_strengths_count(model: nn.Module) -> None:
    peft = pytest.importorskip("peft")
    of = Fingerprint(model)
    seen = [of()]
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    peft.inject_adapter_in_model(config, model, adapter_name="one")
    seen.append(of())
    wrapped = layer(model)
    wrapped.scale_layer(0.5)
    seen.append(of())
    wrapped.enable_adapters(False)
    seen.append(of())
    wrapped.enable_adapters(True)
    assert of() == seen[-2]
    wrapped.merge()
    seen.append(of())
    wrapped.unmerge()
    peft.inject_adapter_in_model(config, model, adapter_name="two")
    seen.append(of())
    wrapped.set_adapter("one")
    seen.append(of())
    assert len(set(seen)) == len(seen)


def test_offloaded_weights_are_read_where_the_hook_keeps_them(model: nn.Module) -> None:
    accelerate = pytest.importorskip("accelerate")
    expected = Fingerprint(model)()
    accelerate.cpu_offload(model, torch.device("cpu"))
    of = Fingerprint(model)
    assert next(model.parameters()).device.type == "meta"
    assert of() == expected
    path = "text_model.final_layer_norm" if hasattr(model, "text_model") else "final_layer_norm"
    norm = model.get_submodule(path)
    norm._hf_hook.weights_map["weight"].add_(1)
    assert of() != expected


def test_unreadable_weights_are_good_for_one_object(model: nn.Module) -> None:
    model.to("meta")
    of = Fingerprint(model)
    assert of() == of()
    assert of() != Fingerprint(model)()


def test_nothing_is_read_twice(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    of = Fingerprint(model)
    of()
    read: list[torch.Size] = []
    content = fingerprint._content
    monkeypatch.setattr(fingerprint, "_content", lambda tensor: (read.append(tensor.shape), content(tensor))[1])
    of()
    assert not read
    shift(model)
    of()
    assert read == [layer(model).weight.shape]


def test_a_repeat_is_quick(model: nn.Module) -> None:
    of = Fingerprint(model)
    of()
    times = []
    for _ in range(20):
        start = time.perf_counter()
        of()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02  # a guard against reading everything again; in truth well below a millisecond


def test_moved_copied_and_strided_weights_are_the_same_weights() -> None:
    linear = nn.Linear(6, 4)
    other = copy.deepcopy(linear)
    other.weight = nn.Parameter(linear.weight.detach().t().contiguous().t())
    assert not other.weight.is_contiguous()
    assert Fingerprint(other)() == Fingerprint(linear)()
    with torch.no_grad():
        other.weight[0, 0] += 1
    assert Fingerprint(other)() != Fingerprint(linear)()


def test_inference_tensors_are_readable() -> None:
    with torch.inference_mode():
        linear = nn.Linear(2, 2)
    of = Fingerprint(linear)
    assert of() == of()


@given(
    st.integers(0, 300),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.bool, torch.float64]),
    st.data(),
)
@pytest.mark.property
def test_any_one_number_counts(size: int, dtype: torch.dtype, data: st.DataObject) -> None:
    storage = (torch.arange(size + 1) % 2).to(dtype)
    tensor = storage[1:]  # at an odd place in memory
    before = fingerprint._content(tensor)
    assert fingerprint._content(tensor.clone()) == before
    if size:
        at = data.draw(st.integers(0, size - 1))
        tensor[at] = 1 - tensor[at].to(torch.int8)
        assert fingerprint._content(tensor) != before
