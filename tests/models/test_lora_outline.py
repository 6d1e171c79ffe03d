from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from clipcond.errors import ModelError
from clipcond.models.lora_outline import LoraOutline, outline_lora


def pair(name: str, wide: int, rank: int = 4, alpha: float | None = 2.0, out: int = 8) -> dict[str, Tensor]:
    """A pair of matrices as kohya's scripts name them."""
    made = {f"{name}.lora_down.weight": torch.zeros(rank, wide), f"{name}.lora_up.weight": torch.zeros(out, rank)}
    return made | ({} if alpha is None else {f"{name}.alpha": torch.tensor(alpha)})


def read(tmp_path: Path, weights: dict[str, Tensor], **metadata: str) -> LoraOutline:
    save_file(weights, tmp_path / "lora.safetensors", metadata=metadata or None)
    return outline_lora(tmp_path / "lora.safetensors")


ATTENTION = "self_attn_q_proj"
CROSS = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def test_kohyas_file_for_stable_diffusion_1(tmp_path: Path) -> None:
    weights = pair(f"lora_te_text_model_encoder_layers_11_{ATTENTION}", 768, rank=4, alpha=2.0)
    weights |= pair("lora_te_text_model_encoder_layers_0_mlp_fc1", 768, rank=4, alpha=4.0)
    weights |= pair(f"lora_unet_{CROSS}", 768, rank=16, alpha=None)
    found = read(tmp_path, weights, ss_base_model_version="sd_v1")
    assert (found.family, found.stated, found.ignored) == ("Stable Diffusion 1", "sd_v1", ())
    encoder, unet = found.parts["text_encoder"], found.parts["unet"]
    assert (encoder.modules, encoder.encoder, encoder.ranks, encoder.scales) == (2, "CLIP-L", {4: 2}, (0.5, 1.0))
    assert (unet.modules, unet.encoder, unet.ranks, unet.scales) == (1, None, {16: 1}, None)
    assert encoder.weights == 2 * (4 * 768 + 8 * 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_alpha_is_read_in_any_float_type(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = {key: value.to(dtype) for key, value in pair(f"lora_unet_{CROSS}", 768, rank=4, alpha=1.0).items()}
    assert read(tmp_path, weights).parts["unet"].scales == (0.25, 0.25)


@pytest.mark.parametrize(
    ("name", "wide", "family", "part"),
    [
        (f"lora_unet_{CROSS}", 1024, "Stable Diffusion 2", "unet"),
        (f"lora_unet_{CROSS}", 2048, "SDXL", "unet"),
        (f"lora_te2_text_model_encoder_layers_31_{ATTENTION}", 1280, "SDXL", "text_encoder_2"),
        ("lora_unet_double_blocks_0_img_attn_qkv", 3072, "Flux", "transformer"),
        ("transformer.single_transformer_blocks.3.attn.to_k", 3072, "Flux", "transformer"),
        ("transformer.transformer_blocks.3.attn.add_k_proj", 1536, "Stable Diffusion 3", "transformer"),
        ("lora_unet_joint_blocks_0_context_block_attn_qkv", 1536, "Stable Diffusion 3", "transformer"),
        (f"lora_unet_{CROSS}", 333, None, "unet"),
    ],
)
def test_the_base_is_told_by_shapes(name: str, wide: int, family: str | None, part: str, tmp_path: Path) -> None:
    found = read(tmp_path, pair(name, wide))
    assert (found.family, list(found.parts), found.ignored) == (family, [part], ())


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
        ("unet.{}.lora_A.default.weight", "unet.{}.lora_B.default.weight"),
        ("base_model.model.unet.{}.lora_A.weight", "base_model.model.unet.{}.lora_B.weight"),
        ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
        ("unet.{}_lora.down.weight", "unet.{}_lora.up.weight"),
    ],
)
def test_the_names_of_peft_and_diffusers(down: str, up: str, tmp_path: Path) -> None:
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    encoder = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer"
    weights = {down.format(layer): torch.zeros(4, 2048), up.format(layer): torch.zeros(8, 4)}
    weights |= {f"{encoder}.down.weight": torch.zeros(2, 768), f"{encoder}.up.weight": torch.zeros(768, 2)}
    found = read(tmp_path, weights)
    assert (found.family, found.ignored) == ("SDXL", ())
    assert {name: part.ranks for name, part in found.parts.items()} == {"unet": {4: 1}, "text_encoder": {2: 1}}


def test_other_kinds_of_adapters_are_named(tmp_path: Path) -> None:
    weights = {f"lora_unet_a.hada_w{n}_{side}": torch.zeros(4, 4) for n in (1, 2) for side in "ab"}
    weights |= {"lora_unet_b.lokr_w1": torch.zeros(4, 4), "lora_unet_b.lokr_w2": torch.zeros(4, 4)}
    weights |= pair("lora_unet_c", 8) | {"lora_unet_c.dora_scale": torch.zeros(8)}
    found = read(tmp_path, weights)
    assert found.ignored == ()
    assert found.parts["unet"].kinds == {"LoHa": 1, "LoKr": 1, "DoRA": 1}


def test_what_a_loader_would_ignore_is_listed_with_its_reason(tmp_path: Path) -> None:
    weights = {
        "first_stage_model.decoder.weight": torch.zeros(2),
        "lora_vae_decoder.lora_down.weight": torch.zeros(2, 2),
        "lora_unet_a.lora_down.weight": torch.zeros(2, 2),
        "lora_unet_b.alpha": torch.tensor(1.0),
        **pair(f"lora_te1_text_model_encoder_layers_12_{ATTENTION}", 768),
        **pair("lora_te1_text_model_encoder_layers_0_self_attn_qkv", 768),
        "bundle_emb.mystyle.string_to_param.*": torch.zeros(1, 768),
    }
    weights |= {"lora_unet_c.lora_down.weight": torch.zeros(4, 2), "lora_unet_c.lora_up.weight": torch.zeros(2, 8)}
    found = read(tmp_path, weights)
    assert {each.reason: each.keys for each in found.ignored} == {
        "the name is of no adapter that loaders know": 1,
        "the layer is of no part of a pipeline": 1,
        "half of a pair: only one of its two matrices is there": 1,
        "an alpha without its matrices": 1,
        "a layer beyond the text encoder's last": 3,
        "a text encoder has no layer of this name": 3,
        "a pair of different ranks": 2,
    }
    assert (found.parts, found.embeddings) == ({}, ("mystyle",))


def header(path: Path, document: object, data: bytes = b"") -> Path:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + data)
    return path


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "its header is a JSON list"),
        (b"{", "is no safetensors file: "),
        (b'{"a":' * 100_000, "nested too deeply|is no safetensors file"),
        ({"a.lora_down.weight": {"dtype": "F32", "shape": [1 << 60, 2], "data_offsets": [0, 8]}}, "is damaged: "),
        ({"a.lora_down.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 1 << 50]}}, "does not say where"),
        ({"a.lora_down.weight": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, "does not say where"),
        ({"a.lora_down.weight": {"dtype": ["F32"], "shape": 3, "data_offsets": "no"}}, "does not say where"),
        ({"a.lora_down.weight": 7}, "does not say where"),
    ],
)
def test_a_hostile_header_is_one_line(document: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        outline_lora(header(tmp_path / "x.safetensors", document, bytes(8)))


def test_a_header_of_impossible_length_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    with pytest.raises(ModelError, match=r"its header would have 4,611,686,018,427,387,904 of 10 bytes"):
        outline_lora(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="is no safetensors file"):
        outline_lora(tmp_path / "x.safetensors")


def test_odd_shapes_and_endless_names_are_no_trouble(tmp_path: Path) -> None:
    entries = {
        "lora_unet_a.lora_down.weight": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
        "lora_unet_a.lora_up.weight": {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]},
        "lora_unet_a.alpha": {"dtype": "XX", "shape": [1], "data_offsets": [4, 8]},
        "lora_unet_" + "_up" * 100_000: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    }
    found = outline_lora(header(tmp_path / "x.safetensors", entries, bytes(8)))
    assert found.family is None
    assert sum(each.keys for each in found.ignored) >= 1
