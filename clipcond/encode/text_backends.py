"""The two libraries' CLIP text towers behind one small interface."""

from __future__ import annotations

from copy import copy
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from clipcond.encode.packed.layers import clip_stack, open_clip_stack
from clipcond.encode.packed.stack import PackedStack
from clipcond.errors import ModelError


class Backend(Protocol):
    """The interface that the two libraries share."""

    layers: int
    width: int
    context: int
    vocabulary: int

    model: nn.Module  # the outermost module that a forward calls
    table: nn.Module  # looks up token embeddings

    def layer_and_last(
        self, ids: Tensor, skip: int, attention_mask: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """The raw output (N, L, D) `skip` layers before the end, or None for -1, and the last one after its norm.

        attention_mask: (N, L) bool, False at positions that nothing attends to; None hands no mask to the model.
        """

    def packing(self) -> PackedStack | None:
        """The model's pieces for a packed pass, or None where only its own forward is right."""

    def norm(self, states: Tensor) -> Tensor: ...

    def project(self, pooled: Tensor) -> Tensor | None: ...

    def parameter(self) -> Tensor: ...


class TransformersText:
    """transformers' CLIP text models: nested (`.text_model`) before 5.6 and with projection, flat otherwise."""

    def __init__(self, model: nn.Module) -> None:
        stack: Any = getattr(model, "text_model", model)
        if not hasattr(stack, "final_layer_norm") or not hasattr(getattr(stack, "embeddings", None), "token_embedding"):
            raise ModelError(f"{type(model).__name__} is no CLIP text model of transformers: it has no CLIP text stack")
        # the outermost module is called, for its offload hooks; a dual encoder's would ask for pictures
        self.model: Any = stack if hasattr(model, "vision_model") else model
        self.table = stack.embeddings.token_embedding
        self._stack = stack
        self._projection: Any = getattr(model, "text_projection", None)
        self.vocabulary, self.width = stack.embeddings.token_embedding.weight.shape
        self.context = int(stack.embeddings.position_embedding.weight.shape[0])
        self.layers = len(stack.encoder.layers)

    def layer_and_last(
        self, ids: Tensor, skip: int, attention_mask: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
        mask = {} if attention_mask is None else {"attention_mask": attention_mask.long()}
        out = self.model(ids, output_hidden_states=skip >= 0, **mask)
        return (out.hidden_states[-1 - skip] if skip >= 0 else None), out.last_hidden_state

    def packing(self) -> PackedStack | None:
        return clip_stack(self.model, self._stack)

    def norm(self, states: Tensor) -> Tensor:
        return _call_beside(self._stack.final_layer_norm, states)

    def project(self, pooled: Tensor) -> Tensor | None:
        return None if self._projection is None else _call_beside(self._projection, pooled)

    def parameter(self) -> Tensor:
        return self._stack.final_layer_norm.weight  # type: ignore[no-any-return]


class OpenClipText:
    """open_clip's text transformer, block by block: its own `encode_text` wants 77 positions and keeps no layers."""

    def __init__(self, model: nn.Module) -> None:
        tower: Any = getattr(model, "text", model)
        name = type(model).__name__
        if not hasattr(tower, "ln_final") or not hasattr(getattr(tower, "transformer", None), "resblocks"):
            raise ModelError(f"{name} holds no CLIP text tower of open_clip (token embedding, blocks, final norm)")
        pooling = getattr(tower, "text_pool_type", getattr(tower, "pool_type", "argmax"))
        if (
            pooling not in ("argmax", "eos")
            or getattr(tower, "attn_mask", None) is None
            or getattr(tower, "cls_emb", None) is not None
            or getattr(tower, "use_pad_mask", False)
        ):
            raise ModelError(
                f"{name}'s text tower is not a causal CLIP transformer pooled at EOS; others are not supported"
            )
        self.model, self.table = tower, tower.token_embedding
        self._tower = tower
        self._blocks = tower.transformer.resblocks
        self.vocabulary, self.width = tower.token_embedding.weight.shape
        self.context = int(tower.positional_embedding.shape[0])
        self.layers = len(self._blocks)

    def layer_and_last(
        self, ids: Tensor, skip: int, attention_mask: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
        tower, length = self._tower, ids.shape[1]
        dtype = tower.transformer.get_cast_dtype()
        x = tower.token_embedding(ids).to(dtype) + tower.positional_embedding[:length].to(dtype)
        mask = tower.attn_mask[:length, :length]
        if attention_mask is not None:  # (N·heads, L, L), as nn.MultiheadAttention wants it
            hidden = mask.masked_fill(~attention_mask[:, None, :], float("-inf"))
            mask = hidden.repeat_interleave(self._blocks[0].attn.num_heads, dim=0)
        sequence_first = not getattr(tower.transformer, "batch_first", True)
        kept = x if skip == self.layers else None
        x = x.transpose(0, 1).contiguous() if sequence_first else x
        for number, block in enumerate(self._blocks, start=1):
            x = block(x, attn_mask=mask)
            if number == self.layers - skip:
                kept = x.transpose(0, 1) if sequence_first else x
        return kept, tower.ln_final(x.transpose(0, 1) if sequence_first else x)

    def packing(self) -> PackedStack | None:
        return open_clip_stack(self._tower)

    def norm(self, states: Tensor) -> Tensor:
        return self._tower.ln_final(states)  # type: ignore[no-any-return]

    def project(self, pooled: Tensor) -> Tensor | None:
        projection = self._tower.text_projection
        if projection is None:
            return None
        projected: Tensor = projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection
        return projected

    def parameter(self) -> Tensor:
        return self._tower.positional_embedding  # type: ignore[no-any-return]


def _call_beside(module: nn.Module, x: Tensor) -> Tensor:
    """Call a module where its input is and in its dtype.

    A forward that offloads block by block has taken its weights away again, and one under layer-wise casting as a whole
    has brought them back to 8 bits. Then hooks stay out of it: those of streamed offloading know weights by identity, and
    load what comes next.
    """
    weights = list(module.parameters())
    elsewhere = any(weight.device not in (x.device, torch.device("meta")) for weight in weights)
    narrow = any(weight.is_floating_point() and weight.dtype.itemsize == 1 for weight in weights)
    if not elsewhere and (not narrow or hasattr(module, "_diffusers_hook")):
        return module(x)  # type: ignore[no-any-return]
    return _bare(module, x.device, x.dtype if narrow else None)(x)  # type: ignore[no-any-return]


def _bare(module: nn.Module, device: torch.device, dtype: torch.dtype | None) -> nn.Module:
    """Return a copy of a module on a device, without hooks before its class's `forward`; gradients reach the original."""
    bare, own = copy(module), vars(module)
    vars(bare).pop("forward", None)
    vars(bare).update(
        _parameters={name: None if p is None else p.to(device, dtype) for name, p in own["_parameters"].items()},
        _buffers={name: None if b is None else b.to(device) for name, b in own["_buffers"].items()},
        _modules={name: None if m is None else _bare(m, device, dtype) for name, m in own["_modules"].items()},
    )
    return bare
