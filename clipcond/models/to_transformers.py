"""An open_clip text tower written in transformers' names: what a diffusers pipeline's `text_encoder/` holds.

Pure functions over dictionaries: neither library is imported. The key layout is the nested one (`text_model.…`), which
every transformers release and the other programs that read diffusers folders understand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.errors import ModelError
from clipcond.prompt.tokenizer import BOS, EOS

_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_OUTSIDE = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_IGNORED = ("visual.", "logit_scale", "logit_bias", "attn_mask", "input_resolution", "context_length", "vocab_size")


def open_clip_text_to_transformers(state: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Rename and split an open_clip (or original CLIP) text tower's weights for transformers' text model.

    state: a whole open_clip state dict, with the text tower at the top or under `text.`; image weights are left out.
    heads: attention heads of the tower, to check the widths against.
    Returns new contiguous tensors in the dtypes they came in, under `text_model.…`, and `text_projection.weight` (P, D)
    where there is a projection: load that one into CLIPTextModelWithProjection only. Raises ModelError for towers that
    CLIPTextModel cannot express (extra parameters, missing ones, a width that the heads do not divide).
    """
    tower = _text_part(state)
    out: dict[str, Tensor] = {}
    for key, value in tower.items():
        match = _BLOCK.fullmatch(key)
        if match:
            out.update(_block(f"text_model.encoder.layers.{match[1]}.", match[2], value))
        elif key in _OUTSIDE:
            out[_OUTSIDE[key]] = value
        elif key == "text_projection":
            out["text_projection.weight"] = value.T
        elif key == "text_projection.weight":
            out["text_projection.weight"] = value
        else:
            raise ModelError(
                f"{key} has no place in a transformers CLIP text model; only plain CLIP text towers convert"
            )
    _check(out, heads)
    return {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in out.items()}


def clip_text_config(model: nn.Module) -> dict[str, Any]:
    """The keyword arguments of transformers' CLIPTextConfig for the text tower of an open_clip model.

    model: `open_clip.CLIP`, `CustomTextCLIP` (its `.text`) or a text tower itself. Padding is EOS, as in SD 1.
    Raises ModelError when there is no plain CLIP text tower, or when its activation is neither GELU nor quick GELU.
    """
    tower: Any = getattr(model, "text", model)
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
    if not blocks or not hasattr(tower, "ln_final"):
        raise ModelError(f"{type(model).__name__} holds no CLIP text tower (token embedding, blocks, final norm)")
    activation = type(blocks[0].mlp[1]).__name__
    names = {"GELU": "gelu", "QuickGELU": "quick_gelu"}
    if activation not in names:
        raise ModelError(f"the text tower's activation is {activation}; a CLIPTextModel has GELU or QuickGELU")
    vocabulary, width = tower.token_embedding.weight.shape
    projection = tower.text_projection
    if projection is None:
        projected = width
    else:
        projected = projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1]
    return {
        "vocab_size": int(vocabulary),
        "hidden_size": int(width),
        "intermediate_size": int(blocks[0].mlp.c_fc.out_features),
        "projection_dim": int(projected),
        "num_hidden_layers": len(blocks),
        "num_attention_heads": int(blocks[0].attn.num_heads),
        "max_position_embeddings": int(tower.positional_embedding.shape[0]),
        "hidden_act": names[activation],
        "layer_norm_eps": float(tower.ln_final.eps),
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
    }


def _text_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's own weights, whatever else the state dict holds."""
    if "text.token_embedding.weight" in state:
        return {
            key.removeprefix("text."): value
            for key, value in state.items()
            if key.startswith("text.") and not _other(key[5:])
        }
    return {key: value for key, value in state.items() if not _other(key)}


def _other(key: str) -> bool:
    return key.startswith(_IGNORED)


def _block(prefix: str, name: str, value: Tensor) -> dict[str, Tensor]:
    """One entry of a residual block; the stacked query, key and value come apart."""
    if name in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = name.rpartition("_")[2]
        return {f"{prefix}self_attn.{axis}_proj.{kind}": part for axis, part in zip("qkv", value.chunk(3), strict=True)}
    stem, _, kind = name.rpartition(".")
    if stem not in _IN_BLOCK:
        raise ModelError(f"a text block holds {name}, which has no place in a transformers CLIP text model")
    return {f"{prefix}{_IN_BLOCK[stem]}.{kind}": value}


def _check(out: Mapping[str, Tensor], heads: int) -> None:
    """Raise ModelError unless the tower is complete."""
    missing = [ours for ours, theirs in _OUTSIDE.items() if theirs not in out]
    if missing:
        raise ModelError(f"the state dict has no {missing[0]}: not an open_clip model with a CLIP text tower")
    width = out[_OUTSIDE["token_embedding.weight"]].shape[1]
    if heads < 1 or width % heads:
        raise ModelError(f"{heads} heads do not divide the text tower's width of {width}")
    layers = {key.split(".")[3] for key in out if key.startswith("text_model.encoder.layers.")}
    for layer in sorted(layers, key=int):
        count = sum(key.startswith(f"text_model.encoder.layers.{layer}.") for key in out)
        if count != 16:
            raise ModelError(f"text block {layer} has {count} of the 16 weights and biases of a CLIP block")
    if {int(layer) for layer in layers} != set(range(len(layers))) or not layers:
        raise ModelError(f"the text tower's blocks are numbered {sorted(layers, key=int)}, expected 0, 1, 2, …")
