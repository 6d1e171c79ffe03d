"""The text tower: token ids in, per-token states of any layer, pooled and projected vectors out, for either library.

Layers are counted as diffusers counts `clip_skip` for Stable Diffusion: 0 is the last layer, 1 the penultimate, up to
the number of layers, which is the embeddings. `pooled` and `projected` always come from the whole stack with its
final norm, at the *first* EOS of a row: never at the largest id, which an added token would win.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from clipcond.encode.shapes import check_axes
from clipcond.errors import ConfigError, ModelError, ShapeError
from clipcond.prompt.tokenizer import EOS

MAX_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextStates:
    """What a text tower says about N rows, in the tower's dtype and on the device it computed on."""

    hidden: Tensor  # (N, L, D)
    pooled: Tensor  # (N, D), after the final norm, before the projection
    projected: Tensor | None  # (N, P), None where the model has no projection


class _Backend(Protocol):
    """What the two libraries are reduced to."""

    layers: int
    width: int
    context: int
    vocabulary: int

    def layer_and_last(self, ids: Tensor, skip: int) -> tuple[Tensor | None, Tensor]:
        """The raw output (N, L, D) `skip` layers before the end, or None for -1, and the last one after its norm."""

    def norm(self, states: Tensor) -> Tensor: ...

    def project(self, pooled: Tensor) -> Tensor | None: ...

    def parameter(self) -> Tensor: ...


class TextTower:
    """One CLIP text encoder behind one interface."""

    def __init__(self, backend: _Backend) -> None:
        self._backend = backend

    @classmethod
    def from_transformers(cls, model: nn.Module) -> TextTower:
        """Wrap a transformers CLIPTextModel, CLIPTextModelWithProjection or CLIPModel; the model is used, not copied.

        Raises ModelError when the model has no CLIP text stack.
        """
        return cls(_Transformers(model))

    @classmethod
    def from_open_clip(cls, model: nn.Module) -> TextTower:
        """Wrap an open_clip `CLIP`, `CustomTextCLIP` or text tower; the model is used, not copied.

        Raises ModelError when its text tower is not a causal CLIP transformer pooled at EOS.
        """
        return cls(_OpenClip(model))

    @property
    def width(self) -> int:
        """D, the width of token states."""
        return self._backend.width

    @property
    def context(self) -> int:
        """The most positions a row may have."""
        return self._backend.context

    @property
    def layers(self) -> int:
        """Number of transformer layers."""
        return self._backend.layers

    @property
    def vocabulary(self) -> int:
        """Number of rows of the token table."""
        return self._backend.vocabulary

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._backend.parameter().device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self._backend.parameter().dtype

    def encode(
        self,
        ids: Tensor,
        *,
        clip_skip: int = 0,
        final_norm: bool = True,
        max_batch: int = MAX_BATCH,
        grad: bool = False,
    ) -> TextStates:
        """Encode rows of token ids; each row's result is independent of its neighbours.

        ids: (N, L) int64 on any device, L at most `context`; every row holds an EOS. Rows may be cut behind their
        EOS: the towers are causal.   clip_skip: 0 the last layer, 1 the penultimate, …   final_norm: norm `hidden` as
        the last layer is. max_batch: rows per forward.   grad: keep the graph for training (ignored under
        torch.no_grad). Raises ShapeError for wrong axes, too many positions, or a row without EOS; ConfigError for an
        impossible clip_skip.
        """
        size = check_axes("ids", ids, "N L")
        if not 1 <= size["L"] <= self.context:
            raise ShapeError(f"ids: axis L is {size['L']}, expected 1 to {self.context} in (N, L)")
        if not 0 <= clip_skip <= self.layers:
            raise ConfigError(
                f"clip_skip is {clip_skip}, expected 0 (last layer) to {self.layers} for this text encoder"
            )
        if max_batch < 1:
            raise ConfigError(f"max_batch is {max_batch}, expected 1 or more")
        at_end = _first_eos(ids)
        skip = clip_skip if clip_skip or not final_norm else -1
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            parts = [
                self._forward(rows, ends, skip, final_norm)
                for rows, ends in zip(torch.split(ids, max_batch), torch.split(at_end, max_batch), strict=True)
            ]
        if len(parts) == 1:
            return parts[0]
        projected = [part.projected for part in parts if part.projected is not None]
        return TextStates(
            hidden=torch.cat([part.hidden for part in parts]),
            pooled=torch.cat([part.pooled for part in parts]),
            projected=torch.cat(projected) if projected else None,
        )

    def _forward(self, ids: Tensor, at_end: Tensor, skip: int, final_norm: bool) -> TextStates:
        """One batch of (N, L) ids with the (N,) positions of their EOS."""
        raw, last = self._backend.layer_and_last(ids.to(self._input_device()), skip)
        hidden = last if raw is None else self._backend.norm(raw) if final_norm else raw
        pooled = last[torch.arange(len(last), device=last.device), at_end.to(last.device)]
        return TextStates(hidden=hidden, pooled=pooled, projected=self._backend.project(pooled))

    def _input_device(self) -> torch.device:
        """Offloaded weights are on no device until the forward moves them, and the ids with them."""
        return torch.device("cpu") if self.device.type == "meta" else self.device


def _first_eos(ids: Tensor) -> Tensor:
    """(N,) positions of the first EOS of each row of (N, L) ids."""
    found = ids == EOS
    without = (~found.any(dim=1)).nonzero().flatten().tolist()
    if without:
        raise ShapeError(f"ids: row {without[0]} holds no EOS ({EOS}), where its text would be pooled")
    return found.int().argmax(dim=1)


class _Transformers:
    """transformers' CLIP text models: nested (`.text_model`) before 5.6 and with projection, flat otherwise."""

    def __init__(self, model: nn.Module) -> None:
        stack: Any = getattr(model, "text_model", model)
        if not hasattr(stack, "final_layer_norm") or not hasattr(getattr(stack, "embeddings", None), "token_embedding"):
            raise ModelError(f"{type(model).__name__} is no CLIP text model of transformers: it has no CLIP text stack")
        # the outermost module is called, for its offload hooks; a dual encoder's would ask for pictures
        self._call: Any = stack if hasattr(model, "vision_model") else model
        self._stack = stack
        self._projection: Any = getattr(model, "text_projection", None)
        self.vocabulary, self.width = stack.embeddings.token_embedding.weight.shape
        self.context = int(stack.embeddings.position_embedding.weight.shape[0])
        self.layers = len(stack.encoder.layers)

    def layer_and_last(self, ids: Tensor, skip: int) -> tuple[Tensor | None, Tensor]:
        out = self._call(ids, output_hidden_states=skip >= 0)
        return (out.hidden_states[-1 - skip] if skip >= 0 else None), out.last_hidden_state

    def norm(self, states: Tensor) -> Tensor:
        return self._stack.final_layer_norm(states)  # type: ignore[no-any-return]

    def project(self, pooled: Tensor) -> Tensor | None:
        return None if self._projection is None else self._projection(pooled)

    def parameter(self) -> Tensor:
        return self._stack.final_layer_norm.weight  # type: ignore[no-any-return]


class _OpenClip:
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
        self._tower = tower
        self._blocks = tower.transformer.resblocks
        self.vocabulary, self.width = tower.token_embedding.weight.shape
        self.context = int(tower.positional_embedding.shape[0])
        self.layers = len(self._blocks)

    def layer_and_last(self, ids: Tensor, skip: int) -> tuple[Tensor | None, Tensor]:
        tower, length = self._tower, ids.shape[1]
        dtype = tower.transformer.get_cast_dtype()
        x = tower.token_embedding(ids).to(dtype) + tower.positional_embedding[:length].to(dtype)
        mask = tower.attn_mask[:length, :length]
        sequence_first = not getattr(tower.transformer, "batch_first", True)
        kept = x if skip == self.layers else None
        x = x.transpose(0, 1).contiguous() if sequence_first else x
        for number, block in enumerate(self._blocks, start=1):
            x = block(x, attn_mask=mask)
            if number == self.layers - skip:
                kept = x.transpose(0, 1) if sequence_first else x
        return kept, tower.ln_final(x.transpose(0, 1) if sequence_first else x)

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
