"""LoRA files of the first format, cloneofsimo's: pairs of matrices without names, in the order of the model's layers.

A `.safetensors` holds `unet:0:up`, `unet:0:down`, `text_encoder:0:up`, …; a `.pt` a list of up, down, up, down, …, of the
U-Net or, by convention in a file named `….text_encoder.pt`, of the text encoder. The layers are those that Stable
Diffusion 1 and 2 had then: in the U-Net all of down_blocks, up_blocks, mid_block; in each transformer block attn1, the
feed-forward's first layer (in files that have it), attn2; of an attention q, k, v, out. In CLIP k, v, q, out.
Their effect is `up @ down`, without an alpha. Source: the `lora_diffusion` package, as of its 0.1 files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.errors import DataError

Pairs = Sequence[tuple[Tensor, Tensor]]  # (up (out, rank), down (rank, in)) of each layer
_NAMED = re.compile(r"(unet|text_encoder):(\d+):(up|down)")
_CLIP = ("k_proj", "v_proj", "q_proj", "out_proj")
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def pairs_of(document: object) -> dict[str, Pairs] | None:
    """The pairs of a file by part, `unet` or `text_encoder`; a list without names under ``. None: another format."""
    if isinstance(document, Mapping):
        named = {match.groups(): tensor for key, tensor in document.items() if (match := _NAMED.fullmatch(key))}
        counts = {
            part: sum(1 for each in named if each[0] == part) // 2 for part in dict.fromkeys(key[0] for key in named)
        }
        return {
            part: [(named[part, str(n), "up"], named[part, str(n), "down"]) for n in range(count)]
            for part, count in counts.items()
        } or None
    if isinstance(document, list) and document and all(isinstance(each, Tensor) for each in document):
        return {"": list(zip(document[::2], document[1::2], strict=False))}
    return None


def convert(pairs: Mapping[str, Pairs], pipe: Any) -> dict[str, Tensor]:
    """The weights under the names that `pipe.load_lora_weights` reads.

    Raises DataError where the pairs do not fit the pipeline's layers in number and sizes.
    """
    converted: dict[str, Tensor] = {}
    for part, matrices in pairs.items():
        for model in (part,) if part else ("text_encoder", "unet"):
            names = _layers(model, getattr(pipe, model, None), matrices)
            if names:
                for name, (up, down) in zip(names, matrices, strict=True):
                    converted[f"{model}.{name}.lora_B.weight"] = up.contiguous()
                    converted[f"{model}.{name}.lora_A.weight"] = down.contiguous()
                break
        else:
            sizes = f"{len(matrices)} pairs of matrices, the first ({len(matrices[0][0])}, {matrices[0][1].shape[1]})"
            raise DataError(f"{sizes}, which are not those of {part or 'any part'} of this {type(pipe).__name__}")
    return converted


def _layers(part: str, model: nn.Module | None, matrices: Pairs) -> list[str]:
    """The names of the layers in the order of the file; empty where numbers or sizes do not fit."""
    if model is None:
        return []
    modules = {name: each for name, each in model.named_modules() if isinstance(each, nn.Linear)}
    for names in _orders(part, list(modules)):
        fits = len(names) == len(matrices) and all(
            (modules[name].out_features, modules[name].in_features) == (up.shape[0], down.shape[1])
            for name, (up, down) in zip(names, matrices, strict=True)
        )
        if fits:
            prefix = "text_model." if part == "text_encoder" and not names[0].startswith("text_model.") else ""
            return [prefix + name for name in names]
    return []


def _orders(part: str, linear: list[str]) -> list[list[str]]:
    """The orders that files have: CLIP's only one; the U-Net's with the feed-forward's first layer and without."""
    if part == "text_encoder":
        attentions = [name.removesuffix(".k_proj") for name in linear if name.endswith(".k_proj")]
        return [[f"{each}.{name}" for each in attentions for name in _CLIP]]
    blocks = [name.removesuffix(".attn1.to_q") for name in linear if name.endswith(".attn1.to_q")]
    places = ("down_blocks", "up_blocks", "mid_block")
    ordered = [block for place in places for block in blocks if block.startswith(place)]
    first = [f"attn1.{name}" for name in _ATTENTION]
    second = [f"attn2.{name}" for name in _ATTENTION]
    return [
        [f"{block}.{name}" for block in ordered for name in names]
        for names in ([*first, "ff.net.0.proj", *second], [*first, *second])
    ]


def load_document(path: Any) -> object:
    """Return the content of a LoRA file, with nothing in it run: a mapping or a list of tensors in the known formats."""
    if str(path).endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
