"""The blocks of an image encoder whose attention mixes places, under one set of names, and what stands behind the mixing.

Whose model is asked only for the modules that it has: open_clip, timm or transformers need not be imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Block:
    """A block's attention. values: (N, S, D) states as they come into the block → (N, S, D) values.

    out: (N, S, D) mixed values → what is added to the states.   batch_first: states come as (N, S, D), else (S, N, D).
    """

    module: nn.Module
    values: Map
    out: Map
    heads: int
    batch_first: bool = True

    def kept(self, states: Tensor) -> Tensor:
        """The output of attention in which each place attends to itself alone."""
        return self.out(self.values(states))

    def alike(self, states: Tensor) -> Tensor:
        """The output of attention in which each value attends to those like it: softmax(V Vᵀ / √d) V, head by head."""
        values = self.values(states)
        count, places, width = values.shape
        heads = values.reshape(count, places, self.heads, width // self.heads).transpose(1, 2)
        mixed = scaled_dot_product_attention(heads, heads, heads)
        return self.out(mixed.transpose(1, 2).reshape(count, places, width))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BlockEncoder:
    """A vision transformer whose vector of a picture is a token's state, or the mean of them, projected.

    project: (N, S, D) states behind the last block → (N, S, P).   patch: rows and columns of one patch, in pixels.
    """

    blocks: Sequence[Block]
    project: Map
    patch: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PoolEncoder:
    """An encoder with a last module that makes one vector of all places.

    pool: that module, called with (N, S, D) states or an (N, D, h, w) map.   places: the same tensor → (N, S, P), each
    place's vector if it were the only place.   prefix: tokens before the places.
    """

    pool: nn.Module
    places: Map
    prefix: int = 0


PatchEncoder = BlockEncoder | PoolEncoder


def patch_encoder(model: Any) -> PatchEncoder | None:
    """The way to read a dual encoder's places; None for an architecture that is not known here."""
    if hasattr(model, "visual"):
        return _of_open_clip(model.visual)
    vision = getattr(model, "vision_model", None)
    return None if vision is None else _of_transformers(model, getattr(vision, "vision_model", vision))


def _of_open_clip(visual: Any) -> PatchEncoder | None:
    if hasattr(visual, "attnpool"):  # ModifiedResNet
        return PoolEncoder(pool=visual.attnpool, places=_resnet_places(visual.attnpool))
    if hasattr(visual, "trunk"):
        return _of_timm(visual)
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None or not hasattr(visual, "ln_post"):
        return None
    if visual.attn_pool is not None:
        return None if visual.attn_pool_contrastive is not None else _coca(visual)
    if not all(map(_is_plain, blocks)):
        return None
    return BlockEncoder(
        blocks=[_open_clip_block(each) for each in blocks],
        project=lambda states: _projected(visual.ln_post(states), visual.proj),
        patch=tuple(visual.conv1.kernel_size),
    )


def _is_plain(block: Any) -> bool:
    attention = getattr(block, "attn", None)
    own = getattr(attention, "in_proj_weight", None)
    return own is not None and getattr(attention, "head_scale", None) is None


def _open_clip_block(block: Any) -> Block:
    attention = block.attn
    inner = getattr(attention, "ln_inner", nn.Identity())
    after = getattr(block, "ln_attn", nn.Identity())

    def out(mixed: Tensor) -> Tensor:
        added: Tensor = block.ls_1(after(attention.out_proj(inner(mixed))))
        return added

    return Block(
        module=block,
        values=lambda states: _third(block.ln_1(states), attention),
        out=out,
        heads=attention.num_heads,
        batch_first=getattr(attention, "batch_first", True),
    )


def _third(states: Tensor, attention: Any) -> Tensor:
    """The values of an attention that keeps the weights of queries, keys and values in one."""
    if attention.in_proj_weight is None:  # MultiheadAttention over states of another width
        bias = attention.in_proj_bias
        return linear(states, attention.v_proj_weight, None if bias is None else bias.chunk(3)[2])
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)[2]
    return linear(states, attention.in_proj_weight.chunk(3)[2], bias)


def _projected(states: Tensor, projection: Tensor | None) -> Tensor:
    return states if projection is None else states @ projection


def _coca(visual: Any) -> PoolEncoder:
    pool = visual.attn_pool

    def places(states: Tensor) -> Tensor:
        pooled = pool.attn.out_proj(_third(pool.ln_k(states), pool.attn))
        return _projected(visual.ln_post(pooled), visual.proj)

    return PoolEncoder(pool=pool, places=places, prefix=1)


def _resnet_places(pool: Any) -> Map:
    def places(found: Tensor) -> Tensor:
        states = _flat(found) + pool.positional_embedding[1:].to(found.dtype)
        vectors: Tensor = pool.c_proj(pool.v_proj(states))
        return vectors

    return places


def _flat(found: Tensor) -> Tensor:
    """(N, D, h, w) → (N, h·w, D)."""
    return found.flatten(2).transpose(1, 2)


def _of_timm(visual: Any) -> PatchEncoder | None:
    trunk, head = visual.trunk, visual.head
    pool: Any = getattr(trunk, "attn_pool", None)
    if pool is not None:  # SigLIP
        own = hasattr(pool, "kv") and pool.pos_embed is None
        return PoolEncoder(pool=pool, places=_latent_places(visual)) if own else None
    last: Any = getattr(trunk, "head", None)
    if hasattr(trunk, "blocks") or not hasattr(last, "global_pool") or hasattr(head, "pool"):
        return None

    def places(found: Tensor) -> Tensor:  # ConvNeXt and others that take the mean of a map: a place is a map of one
        states = _flat(found)
        single: Tensor = head(last(states.reshape(-1, states.shape[-1], 1, 1)))
        return single.reshape(*states.shape[:2], -1)

    return PoolEncoder(pool=last, places=places)


def _latent_places(visual: Any) -> Map:
    trunk, pool = visual.trunk, visual.trunk.attn_pool

    def places(states: Tensor) -> Tensor:
        vectors = pool.proj(pool.kv(states).chunk(2, dim=-1)[1])
        vectors = vectors if pool.mlp is None else vectors + pool.mlp(pool.norm(vectors))
        projected: Tensor = visual.head(trunk.head(trunk.fc_norm(vectors)))
        return projected

    return places


def _of_transformers(model: Any, vision: Any) -> PatchEncoder | None:
    layers = getattr(getattr(vision, "encoder", None), "layers", None)
    if layers is None:
        pooler = getattr(vision, "pooler", None)  # ALIGN: the mean of a map, not projected
        return PoolEncoder(pool=pooler, places=_flat) if isinstance(pooler, nn.AvgPool2d) else None
    if hasattr(vision, "head"):
        return PoolEncoder(pool=vision.head, places=_siglip_places(vision.head))
    project = _transformers_projection(model, vision)
    patches = getattr(vision.embeddings, "patch_embedding", None)
    if project is None or not isinstance(patches, nn.Conv2d):
        return None
    return BlockEncoder(
        blocks=[_transformers_block(each) for each in layers],
        project=project,
        patch=(patches.kernel_size[0], patches.kernel_size[1]),
    )


def _siglip_places(head: Any) -> Map:
    def places(states: Tensor) -> Tensor:
        vectors = head.attention.out_proj(_third(states, head.attention))
        added: Tensor = vectors + head.mlp(head.layernorm(vectors))
        return added

    return places


def _transformers_projection(model: Any, vision: Any) -> Map | None:
    norm: Any = vision.post_layernorm
    if hasattr(model, "vision_proj"):  # BlipForImageTextRetrieval
        return lambda states: model.vision_proj(norm(states))
    if not hasattr(model, "visual_projection"):
        return None
    if type(model).__name__ == "BlipModel":  # which normalises twice
        return lambda states: model.visual_projection(norm(norm(states)))
    return lambda states: model.visual_projection(norm(states))


def _transformers_block(layer: Any) -> Block:
    attention = layer.self_attn
    if hasattr(attention, "qkv"):  # BLIP

        def values(states: Tensor) -> Tensor:
            third: Tensor = attention.qkv(layer.layer_norm1(states)).chunk(3, dim=-1)[2]
            return third

        return Block(module=layer, values=values, out=attention.projection, heads=attention.num_heads)
    return Block(
        module=layer,
        values=lambda states: attention.v_proj(layer.layer_norm1(states)),
        out=attention.out_proj,
        heads=attention.num_heads,
    )
