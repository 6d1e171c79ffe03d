"""Both towers of an open_clip `CLIP` as training needs them: short text batches, frozen parts outside the graph."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from clipcond.errors import ModelError

EOS = 49407


def check_model(model: nn.Module) -> None:
    """Raise ModelError unless the text tower is CLIP's: causal, pooled at the end of text, the 49,408-entry vocabulary."""
    needed = (
        "token_embedding",
        "positional_embedding",
        "transformer",
        "ln_final",
        "text_projection",
        "attn_mask",
        "visual",
    )
    if any(getattr(model, name, None) is None for name in needed):
        raise ModelError("training needs an open_clip model with CLIP's own text tower; this one has another kind")
    if model.token_embedding.num_embeddings != 49408:  # type: ignore[union-attr]
        raise ModelError(
            f"training needs CLIP's vocabulary of 49408; this model has {model.token_embedding.num_embeddings}"
        )  # type: ignore[union-attr]
    if getattr(model, "text_pool_type", "argmax") not in ("argmax", "eos"):
        raise ModelError(
            f"training needs a text tower pooled at the end of text; this one pools {model.text_pool_type!r}"
        )


def text_trunk(model: Any) -> list[nn.Parameter]:
    """The parameters that `freeze = ["text"]` keeps: embeddings, transformer, final norm; not the projection."""
    return [
        model.token_embedding.weight,
        model.positional_embedding,
        *model.transformer.parameters(),
        *model.ln_final.parameters(),
    ]


def freeze(model: Any, parts: Collection[str]) -> None:
    """Take the named parts out of training; what is left must hold something to train."""
    if "text" in parts:
        for parameter in text_trunk(model):
            parameter.requires_grad_(False)
    if "image" in parts:
        for parameter in model.visual.parameters():
            parameter.requires_grad_(False)


def text_state(model: Any, ids: Tensor) -> Tensor:
    """(B, L) int64 rows of BOS … EOS …, L ≤ 77, to the (B, D) state at the first EOS after the final norm.

    The tower is causal, so a batch cut to its longest row gives what 77 positions give. No graph is built for a frozen
    trunk.
    """
    trains = any(parameter.requires_grad for parameter in text_trunk(model))
    with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
        length = ids.shape[1]
        x = model.token_embedding(ids) + model.positional_embedding[:length]
        x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
        x = x[torch.arange(len(ids), device=ids.device), (ids == EOS).int().argmax(dim=1)]
        return model.ln_final(x)


def text_features(model: Any, ids: Tensor) -> Tensor:
    """(B, L) ids to (B, P) unit rows, float32."""
    state = text_state(model, ids)
    projection = model.text_projection
    projected = projection(state) if isinstance(projection, nn.Module) else state @ projection
    return normalize(projected.float(), dim=-1)


def image_features(model: Any, pixels: Tensor) -> Tensor:
    """(B, 3, H, W) normalised pixels to (B, P) unit rows, float32."""
    trains = any(parameter.requires_grad for parameter in model.visual.parameters())
    with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
        return normalize(model.visual(pixels).float(), dim=-1)
