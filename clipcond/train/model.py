"""Both towers of an open_clip `CLIP` as training needs them: short text batches, frozen parts outside the graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, scaled_dot_product_attention

from clipcond.errors import ConfigError, ModelError
from clipcond.prompt.tokenizer import EOS, VOCABULARY
from clipcond.train.losses.temperature import SIGLIP_LOGIT_BIAS, SIGLIP_LOGIT_SCALE


def check_model(model: Any) -> None:
    """Raise ModelError unless the text tower is CLIP's: causal, pooled at the end of text, 49,408 tokens."""
    needed = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection", "attn_mask")
    if any(getattr(model, name, None) is None for name in (*needed, "visual")):
        raise ModelError("training needs an open_clip model with CLIP's own text tower; this one has another kind")
    if model.token_embedding.num_embeddings != VOCABULARY:
        size = model.token_embedding.num_embeddings
        raise ModelError(f"training needs CLIP's vocabulary of {VOCABULARY}; this model has {size}")
    if getattr(model, "text_pool_type", "argmax") not in ("argmax", "eos"):
        raise ModelError(f"training needs a text tower that pools at the end of text, not at {model.text_pool_type!r}")


def text_trunk(model: Any) -> list[nn.Parameter]:
    """Return the parameters that `freeze = ["text"]` keeps: embeddings, transformer, final norm; not the projection."""
    return [
        model.token_embedding.weight,
        model.positional_embedding,
        *model.transformer.parameters(),
        *model.ln_final.parameters(),
    ]


def temperature(model: Any) -> list[nn.Parameter]:
    """Return the scale of the logits and, where a sigmoid loss has one, their bias."""
    return [each for each in (model.logit_scale, getattr(model, "logit_bias", None)) if each is not None]


def freeze(model: Any, parts: Collection[str], *, text_blocks: int | None = None, but_unseen: bool = False) -> None:
    """Take the named parts, of FREEZABLE, out of training; what is left must hold something to train.

    text_blocks: of the text trunk, the last so many blocks and the final norm train alone.   but_unseen: the token table of
    a text tower that is frozen in whole or in part trains all the same; the optimizer takes its unseen rows.
    Raises ConfigError for more blocks than there are.
    """
    kept: list[nn.Parameter] = text_trunk(model) if "text" in parts else []
    if text_blocks is not None:
        blocks = model.transformer.resblocks
        if text_blocks > len(blocks):
            raise ConfigError(f"train_blocks is {text_blocks}, the text tower has {len(blocks)} blocks")
        below = [parameter for block in blocks[: len(blocks) - text_blocks] for parameter in block.parameters()]
        kept += [model.token_embedding.weight, model.positional_embedding, *below]
    if "image" in parts:
        kept += model.visual.parameters()
    if "temperature" in parts:
        kept += temperature(model)
    for parameter in kept:
        parameter.requires_grad_(False)
    if but_unseen:
        model.token_embedding.weight.requires_grad_(True)


def begin_sigmoid(model: Any, config: dict[str, Any]) -> None:
    """Give a model that no sigmoid loss has trained the bias that one needs, and its first temperature.

    config: of the model, as its folder holds it; it will then build the model with the bias.
    """
    if getattr(model, "logit_bias", None) is not None:
        return
    model.logit_bias = nn.Parameter(torch.full_like(model.logit_scale, SIGLIP_LOGIT_BIAS))
    with torch.no_grad():
        model.logit_scale.fill_(SIGLIP_LOGIT_SCALE)
    config["model_cfg"]["init_logit_bias"] = SIGLIP_LOGIT_BIAS


def has_batch_norm(module: nn.Module) -> bool:
    """True if some layer normalises over the batch."""
    return any(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in module.modules())


def lay_out_for_convolutions(model: Any) -> None:
    """Hold the channels of one place next to each other in an image tower that convolves.

    CLIP's ResNet (2, 2, 2, 2) of width 24 at 64 pixels, forward and backward, one core with AMX: bfloat16 2.9 ms a picture
    in place of 4.0, float32 4.3 in place of 6.2.
    """
    if convolves(model.visual):
        model.visual.to(memory_format=torch.channels_last)


def convolves(module: nn.Module) -> bool:
    """True if a layer after the first convolves places with their neighbours, which a ViT's do not."""
    layers = [each for each in module.modules() if isinstance(each, nn.Conv2d)]
    return any(max(each.kernel_size) > 1 for each in layers[1:])


def _layout(tower: nn.Module) -> torch.memory_format:
    """The layout of a tower's first kernels, which its pictures are to have as well."""
    kernels = next((each for each in tower.parameters() if each.ndim == 4), None)
    return torch.contiguous_format if kernels is None or kernels.is_contiguous() else torch.channels_last


def train_mode(model: Any) -> None:
    """Put what trains into training mode; frozen towers stay as at inference, their batch statistics too."""
    model.train()
    if not any(parameter.requires_grad for parameter in model.visual.parameters()):
        model.visual.eval()
    if not any(parameter.requires_grad for parameter in text_trunk(model)):
        model.transformer.eval()


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor that holds a NaN or an infinity; None if none does."""
    return next((name for name, value in state.items() if not bool(torch.isfinite(value).all())), None)


def text_state(model: Any, ids: Tensor, *, group: int = 64) -> Tensor:
    """Encode (B, L) int64 rows of BOS … EOS … to the (B, D) state at the first EOS after the final norm.

    Rows of like length go through in groups of `group`, each cut to its longest row: the tower is causal, so that gives
    what all positions give. No graph is built for a frozen trunk.
    """
    trains = any(parameter.requires_grad for parameter in text_trunk(model))
    with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
        ends = (ids == EOS).int().argmax(dim=1)
        order = ends.argsort(stable=True)
        states = []
        for rows in torch.split(order, group):
            at = ends[rows]
            length = int(at[-1]) + 1
            x = model.token_embedding(ids[rows, :length]) + model.positional_embedding[:length]
            x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
            states.append(model.ln_final(x[torch.arange(len(rows), device=ids.device), at]))
        joined: Tensor = torch.cat(states)[order.argsort()]
        return joined


def text_features(model: Any, ids: Tensor) -> Tensor:
    """Encode (B, L) ids to (B, P) unit rows, float32."""
    state = text_state(model, ids)
    projection = model.text_projection
    projected = projection(state) if isinstance(projection, nn.Module) else state @ projection
    return normalize(projected.float(), dim=-1)


def image_features(model: Any, pixels: Tensor) -> Tensor:
    """Encode (B, 3, H, W) normalised pixels to (B, P) unit rows, float32."""
    pixels = pixels.contiguous(memory_format=_layout(model.visual))
    trains = any(parameter.requires_grad for parameter in model.visual.parameters())
    with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
        return normalize(model.visual(pixels).float(), dim=-1)


def use_plain_attention(model: nn.Module) -> None:
    """Make the model's attention modules compute bfloat16 on a CPU as two products and a softmax.

    torch's own kernel for that case takes six times as long, forward and backward (256 rows of 65 positions, 4 heads of
    36, one core with AMX: 144 ms against 24; float32: 48). Weights and their names are untouched.
    """
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention) and module.batch_first and module.in_proj_weight is not None:
            module.forward = MethodType(_attend, module)  # type: ignore[method-assign]


def _attend(
    self: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, *,
    need_weights: bool = False, attn_mask: Tensor | None = None,
) -> tuple[Tensor, None]:  # fmt: skip
    """Self-attention over (B, T, D), as open_clip's blocks ask for it: one tensor three times, no weights wanted."""
    assert query is key
    assert key is value
    assert not need_weights
    joint = linear(query, self.in_proj_weight, self.in_proj_bias)
    q, k, v = torch.unflatten(joint, -1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return linear(attended(q, k, v, attn_mask), self.out_proj.weight, self.out_proj.bias), None


def attended(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None) -> Tensor:
    """Attention of (B, H, T, D/H) queries, keys and values under a (T, T) mask that is added; returns (B, T, D)."""
    if q.dtype == torch.bfloat16 and q.device.type == "cpu":
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        mixed = torch.softmax(scores if attn_mask is None else scores + attn_mask.to(scores.dtype), dim=-1) @ v
    else:
        mask = attn_mask.to(q.dtype) if attn_mask is not None else None
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2)
