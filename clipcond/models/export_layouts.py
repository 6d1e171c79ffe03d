"""Layouts of a text encoder's weights: transformers' nested and flat names, open_clip's, and those inside checkpoints.

Pure functions over dictionaries: no model library is imported. The nested layout (`text_model.…`) is the one that every
transformers release, diffusers and ComfyUI read, so all others are made from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from clipcond.errors import ModelError

PROJECTION = "text_projection.weight"
_LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.")
_OPEN_CLIP = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
_OPEN_CLIP_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
# where checkpoints of one file hold an encoder: family, encoder → prefix, open_clip's names or transformers'
CHECKPOINTS: Mapping[tuple[str, str], tuple[str, bool]] = {
    ("sd15", "clip_l"): ("cond_stage_model.transformer.", False),
    ("sd2", "clip_h"): ("cond_stage_model.model.", True),
    ("sdxl", "clip_l"): ("conditioner.embedders.0.transformer.", False),
    ("sdxl", "clip_g"): ("conditioner.embedders.1.model.", True),
    ("sd3", "clip_l"): ("text_encoders.clip_l.transformer.", False),
    ("sd3", "clip_g"): ("text_encoders.clip_g.transformer.", False),
}


def nested(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a transformers text model's weights in nested names, from nested or flat ones.

    Takes the projection's wrong name of transformers 5.6 to 5.10 too, and leaves `position_ids` out, which is computed.
    """
    return {name: value for key, value in state.items() if (name := nested_name(key)) is not None}


def nested_name(key: str) -> str | None:
    """Return the nested name of a nested or flat one; None for what is no weight."""
    bare = key.removeprefix("text_model.")
    if bare.endswith("position_ids"):
        return None
    return bare if bare == PROJECTION else f"text_model.{bare}"


def layer_count(state: Iterable[str]) -> int:
    """Return the number of layers that nested names speak of."""
    return max((int(match[1]) + 1 for key in state if (match := _LAYER.match(key))), default=0)


def without_last_layers(state: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return nested weights without the last `count` layers; the final norm then follows what is left."""
    kept = layer_count(state) - count
    return {key: value for key, value in state.items() if not (match := _LAYER.match(key)) or int(match[1]) < kept}


def to_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return nested weights in open_clip's names: query, key and value stacked, the projection transposed to (D, P).

    Raises ModelError for a name that a CLIP text model does not have.
    """
    out, apart = {}, dict[str, dict[str, Tensor]]()
    for key, value in state.items():
        layer = _LAYER.match(key)
        if key in _OPEN_CLIP:
            out[_OPEN_CLIP[key]] = value
        elif key == PROJECTION:
            out["text_projection"] = value.T.contiguous()
        elif layer is None:
            raise ModelError(f"{key} is no weight of a CLIP text model")
        else:
            block, (stem, _, kind) = f"transformer.resblocks.{layer[1]}.", key[layer.end() :].rpartition(".")
            if stem in _OPEN_CLIP_BLOCK:
                out[f"{block}{_OPEN_CLIP_BLOCK[stem]}.{kind}"] = value
            else:
                apart.setdefault(f"{block}attn.in_proj_{kind}", {})[stem] = value
    for name, parts in apart.items():
        out[name] = torch.cat([parts[f"self_attn.{axis}_proj"] for axis in "qkv"])
    return out
