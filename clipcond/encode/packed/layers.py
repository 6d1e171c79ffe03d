"""The libraries' text encoders in the pieces that a packed pass needs, or a clear no.

Sub-modules are called as modules, so LoRA wrappers, quantised layers and offload hooks on them work. Modules that
a packed pass walks around must carry nothing that a call of them would do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from clipcond.encode.fingerprint import running_device
from clipcond.encode.packed.stack import PackedLayer

_CLIP_LAYER = "CLIPEncoderLayer"
_CLIP_ATTENTION = ("CLIPAttention", "CLIPSdpaAttention", "CLIPFlashAttention2")


class ClipLayer:
    """A layer of transformers' CLIP."""

    def __init__(self, layer: Any) -> None:
        self._layer, self._attention = layer, layer.self_attn
        self.heads, self.scale = int(layer.self_attn.num_heads), float(layer.self_attn.scale)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed, attention = self._layer.layer_norm1(x), self._attention
        return attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)

    def output(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self._attention.out_proj(attended)
        return x + self._layer.mlp(self._layer.layer_norm2(x))  # type: ignore[no-any-return]


class OpenClipLayer:
    """open_clip's plain ResidualAttentionBlock."""

    def __init__(self, block: Any) -> None:
        self._block, self._attention = block, block.attn
        self.heads, self.scale = int(block.attn.num_heads), float(block.attn.head_dim) ** -0.5

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attention = self._attention
        q, k, v = linear(self._block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        return q, k, v

    def output(self, x: Tensor, attended: Tensor) -> Tensor:
        block = self._block
        x = x + block.ls_1(self._attention.out_proj(attended))
        return x + block.ls_2(block.mlp(block.ln_2(x)))  # type: ignore[no-any-return]


class ClipStack:
    """transformers' CLIP text stack inside the model that a forward calls."""

    def __init__(self, model: Any, stack: Any) -> None:
        self._model, self._stack = model, stack
        self.token_embedding: nn.Module = stack.embeddings.token_embedding
        self.layers: Sequence[PackedLayer] = [ClipLayer(layer) for layer in stack.encoder.layers]

    def positions(self, at: Tensor) -> Tensor:
        return self._stack.embeddings.position_embedding(at)  # type: ignore[no-any-return]

    def cast(self, x: Tensor) -> Tensor:
        return x

    def norm(self, states: Tensor) -> Tensor:
        return self._stack.final_layer_norm(states)  # type: ignore[no-any-return]

    @contextmanager
    def open(self) -> Iterator[torch.device]:
        hook = getattr(self._model, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(self._model)
        try:
            yield running_device(self._model, self._stack.final_layer_norm.weight)
        finally:
            if hook is not None:
                hook.post_forward(self._model, None)


class OpenClipStack:
    """open_clip's text tower."""

    def __init__(self, tower: Any) -> None:
        self._tower = tower
        self.token_embedding: nn.Module = tower.token_embedding
        self.layers: Sequence[PackedLayer] = [OpenClipLayer(block) for block in tower.transformer.resblocks]

    def positions(self, at: Tensor) -> Tensor:
        return self.cast(self._tower.positional_embedding)[at]

    def cast(self, x: Tensor) -> Tensor:
        return x.to(self._tower.transformer.get_cast_dtype())

    def norm(self, states: Tensor) -> Tensor:
        return self._tower.ln_final(states)  # type: ignore[no-any-return]

    @contextmanager
    def open(self) -> Iterator[torch.device]:
        yield self._tower.positional_embedding.device


def clip_stack(model: nn.Module, stack: Any) -> ClipStack | None:
    """A CLIP text stack of transformers for packed passes, or None where only the model's own forward is right."""
    layers = list(stack.encoder.layers)
    if not all(
        type(layer).__name__ == _CLIP_LAYER and type(layer.self_attn).__name__ in _CLIP_ATTENTION for layer in layers
    ):
        return None
    if any(layer.self_attn.training and layer.self_attn.dropout for layer in layers):
        return None
    walked = [*layers, *(layer.self_attn for layer in layers), stack.encoder, stack.embeddings, stack, model]
    if any(_observed(module) for module in walked) or _offloaded_by_layer(model, stack, layers):
        return None
    return ClipStack(model, stack)


def open_clip_stack(tower: Any) -> OpenClipStack | None:
    """open_clip's text tower for packed passes, or None where only its blocks' own forwards are right."""
    blocks = list(tower.transformer.resblocks)
    plain = all(
        type(block).__name__ == "ResidualAttentionBlock"
        and type(block.attn) is nn.MultiheadAttention
        and block.attn.in_proj_weight is not None
        and not (block.attn.training and block.attn.dropout)
        and not hasattr(block, "ln_1_kv")
        and not _observed(block)
        and not _observed(block.attn)
        for block in blocks
    )
    return OpenClipStack(tower) if plain else None


def _observed(module: nn.Module) -> bool:
    """True if a call of the module itself does more than its class says.

    transformers' own hooks are left in place once hidden states were asked for, and do nothing outside its forward.
    """
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return any(not getattr(hook, "__module__", "").startswith("transformers.") for hook in hooks)


def _offloaded_by_layer(model: nn.Module, stack: nn.Module, layers: Sequence[nn.Module]) -> bool:
    """accelerate's hooks on whole layers (a model spread over devices), or diffusers' group offloading anywhere."""
    inner = [*layers, *(layer.self_attn for layer in layers), stack.get_submodule("encoder")]
    if stack is not model:
        inner.append(stack)
    return any(hasattr(module, "_hf_hook") for module in inner) or any(
        hasattr(module, "_diffusers_hook") for module in model.modules()
    )
