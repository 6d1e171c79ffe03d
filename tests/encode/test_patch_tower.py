"""Vectors of patches: equal to slow second ways, over open_clip, timm and transformers; and on the embedded model, right."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from encoders import TEXT, close
from torch import Tensor, nn

from clipcond.encode.image import ImageTower
from clipcond.encode.patch_blocks import BlockEncoder, PoolEncoder, patch_encoder
from clipcond.encode.patch_tower import PatchTower, Way
from clipcond.errors import ModelError, ShapeError
from clipcond.images.patches import PatchPreprocess
from clipcond.images.preprocess import Preprocess
from clipcond.mini import world
from clipcond.rerank.scorer import Scorer

SIDE, PATCH = 32, 8
_HALF = (0.5, 0.5, 0.5)
_PREPROCESS = Preprocess(height=SIDE, width=SIDE, mean=_HALF, std=_HALF)
_VISION = {"image_size": SIDE, "patch_size": PATCH, "width": 16, "layers": 3, "head_width": 8, "mlp_ratio": 2.0}
_LAYERS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
_TOWER = {**_LAYERS, "image_size": SIDE, "patch_size": PATCH}
_TEXT = {**_LAYERS, "vocab_size": 99}


def seeded(make: Callable[[], nn.Module]) -> Any:
    """A model of random weights of seed 0, of which no part is without effect."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().eval().requires_grad_(False)
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.3)
        return model


def open_clip_tower(**vision: Any) -> ImageTower:
    import open_clip

    text = {**TEXT, "width": 16, "heads": 2, "layers": 1}
    model = seeded(lambda: open_clip.CLIP(embed_dim=12, vision_cfg={**_VISION, **vision}, text_cfg=text))
    return ImageTower(model, _PREPROCESS, model.encode_image, [model.visual])


def transformers_tower(name: str, **settings: Any) -> ImageTower:
    import transformers

    config = getattr(transformers, name.replace("ForImageTextRetrieval", "").replace("Model", "") + "Config")(
        **settings
    )
    model = seeded(lambda: getattr(transformers, name)(config))

    def forward(pixels: Tensor) -> Tensor:
        if hasattr(model, "vision_proj"):
            projected: Tensor = model.vision_proj(model.vision_model(pixel_values=pixels).last_hidden_state[:, 0])
            return projected
        features = model.get_image_features(pixel_values=pixels)
        return features if isinstance(features, Tensor) else features.pooler_output

    return ImageTower(model, _PREPROCESS, forward, [model.vision_model])


_BLIP = {"text_config": {**_TEXT, "encoder_hidden_size": 16, "max_position_embeddings": 9}, "vision_config": _TOWER}
BLOCKS: dict[str, Callable[[], ImageTower]] = {
    "open_clip": open_clip_tower,
    "open_clip, scaled layers": lambda: open_clip_tower(ls_init_value=0.5),
    "open_clip, blocks of its own": lambda: open_clip_tower(
        block_type="custom", qk_norm=True, scale_attn=True, scale_attn_inner=True
    ),
    "CLIP": lambda: transformers_tower(
        "CLIPModel", text_config={**_TEXT, "max_position_embeddings": 9}, vision_config=_TOWER, projection_dim=12
    ),
    "Chinese-CLIP": lambda: transformers_tower(
        "ChineseCLIPModel", text_config={**_TEXT, "max_position_embeddings": 9}, vision_config=_TOWER, projection_dim=12
    ),
    "BLIP": lambda: transformers_tower("BlipModel", **_BLIP, projection_dim=12),
    "BLIP for retrieval": lambda: transformers_tower(
        "BlipForImageTextRetrieval", **_BLIP, image_text_hidden_size=12
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (2, SIDE, SIDE, 3)).astype(np.uint8)


@pytest.fixture(scope="module", params=BLOCKS)
def tower(request: pytest.FixtureRequest) -> ImageTower:
    return BLOCKS[request.param]()


def states_of(tower: ImageTower, pixels: np.ndarray) -> tuple[BlockEncoder, list[Tensor]]:
    """The blocks and the states before each of them and behind the last, (N, S, D)."""
    encoder = patch_encoder(tower.model)
    assert isinstance(encoder, BlockEncoder)
    seen: list[Tensor] = []
    hooks = [
        each.module.register_forward_hook(lambda _, given, out: seen.extend([given[0], out])) for each in encoder.blocks
    ]
    tower.embed_pixels(pixels)
    for hook in hooks:
        hook.remove()
    whole = [each if isinstance(each, Tensor) else each[0] for each in seen]
    return encoder, [*whole[::2], whole[-1]]


def test_the_projection_is_that_of_the_whole_picture(tower: ImageTower, pixels: np.ndarray) -> None:
    encoder, states = states_of(tower, pixels)
    token = nn.functional.normalize(encoder.project(states[-1])[:, 0], dim=-1)
    close(token, tower.embed_pixels(pixels))


@pytest.mark.parametrize("way", ["surgery", "values", "states"])
def test_patches_are_those_of_a_slow_second_way(tower: ImageTower, pixels: np.ndarray, way: Way) -> None:
    encoder, states = states_of(tower, pixels)
    found = PatchTower("model", tower).embed_pixels(pixels, way)
    assert found.shape == (2, 4, 4, 12)
    if way == "states":
        mixed = states[-1]
    elif way == "values":
        mixed = encoder.blocks[-1].out(encoder.blocks[-1].values(states[-2]))
    else:
        mixed = sum(
            (_alike(block, one) for block, one in zip(encoder.blocks[1:], states[1:-1], strict=True)), Tensor([0])
        )
    expected = nn.functional.normalize(encoder.project(mixed)[:, 1:], dim=-1)
    close(found, expected.reshape(2, 4, 4, 12))


def _alike(block: Any, states: Tensor) -> Tensor:
    """Values attending to values, one head and one place at a time."""
    values = block.values(states)
    mixed, width = torch.zeros_like(values), values.shape[-1] // block.heads
    for head in range(block.heads):
        own = values[..., head * width : (head + 1) * width]
        for place in range(values.shape[1]):
            weights = ((own * own[:, place, None]).sum(-1) / width**0.5).softmax(dim=-1)
            mixed[:, place, head * width : (head + 1) * width] = (weights[..., None] * own).sum(dim=1)
    return block.out(mixed)


def test_values_are_what_attention_mixes(tower: ImageTower, pixels: np.ndarray) -> None:
    """With all places alike attention changes nothing, so that its output is the value's own."""
    encoder, states = states_of(tower, pixels)
    block = encoder.blocks[-1]
    alike = states[0][:, 1:2].expand(-1, 5, -1).contiguous()
    attention = getattr(block.module, "attn", None) or block.module.self_attn
    given = {"need_weights": False} if isinstance(attention, nn.MultiheadAttention) else {}
    norm = getattr(block.module, "ln_1", None) or block.module.layer_norm1
    normed = norm(alike)
    out = attention(normed, normed, normed, **given) if given else attention(normed)
    mixed = out if isinstance(out, Tensor) else out[0]
    after = nn.Sequential(getattr(block.module, "ln_attn", nn.Identity()), getattr(block.module, "ls_1", nn.Identity()))
    close(block.kept(alike), after(mixed))


def _coca() -> ImageTower:
    return open_clip_tower(attentional_pool=True, attn_pooler_heads=2)


def _timm(name: str, side: int = SIDE, **vision: Any) -> ImageTower:
    model = open_clip_tower(timm_model_name=name, timm_model_pretrained=False, image_size=side, **vision).model
    return ImageTower(model, Preprocess(height=side, width=side, mean=_HALF, std=_HALF), model.encode_image)


POOLS: dict[str, Callable[[], ImageTower]] = {
    "CoCa": _coca,
    "timm SigLIP": lambda: _timm("vit_tiny_patch16_224", 224, timm_pool="map", timm_proj="none"),
    "SigLIP": lambda: transformers_tower(
        "SiglipModel", text_config={**_TEXT, "max_position_embeddings": 9}, vision_config=_TOWER
    ),
    "ConvNeXt": lambda: _timm("convnext_atto", timm_pool="", timm_proj="linear"),
    "ALIGN": lambda: transformers_tower(
        "AlignModel", text_config={**_TEXT, "max_position_embeddings": 9}, projection_dim=16,
        vision_config={"image_size": SIDE, "width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 16,
                       "depth_divisor": 4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", POOLS)
def test_a_place_alone_is_pooled_as_the_picture(name: str, pixels: np.ndarray) -> None:
    """The pooling module, given one place, must come to that place's vector."""
    tower = POOLS[name]()
    pixels = pixels.repeat(tower.preprocess.height // SIDE, axis=1).repeat(tower.preprocess.width // SIDE, axis=2)
    encoder = patch_encoder(tower.model)
    assert isinstance(encoder, PoolEncoder)
    seen: list[Tensor] = []

    def one_place(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first = encoder.prefix
        seen.append(given[0][:, first : first + 1] if given[0].ndim == 3 else given[0][:, :, :1, :1])
        return (seen[0], *given[1:])

    whole = PatchTower("model", tower).embed_pixels(pixels)
    hook = encoder.pool.register_forward_pre_hook(one_place)
    pooled = tower.embed_pixels(pixels)
    hook.remove()
    close(nn.functional.normalize(encoder.places(seen[0])[:, 0], dim=-1), pooled)
    close(whole[:, 0, 0], pooled)
    if whole.shape[1] > 1:
        assert (whole[:, 0, 0] - whole[:, -1, -1]).abs().max() > 1e-3


def test_a_resnet_gives_the_values_of_its_pool(pixels: np.ndarray) -> None:
    tower = open_clip_tower(layers=[1, 1, 1, 1], width=8, patch_size=None, image_size=64, head_width=32)
    pool = tower.model.visual.attnpool
    tower = ImageTower(tower.model, Preprocess(height=64, width=64, mean=_HALF, std=_HALF), tower.model.encode_image)
    seen: list[Tensor] = []
    hook = pool.register_forward_hook(lambda _, given, out: seen.append(given[0]))
    found = PatchTower("RN", tower).embed_pixels(np.tile(pixels, (1, 2, 2, 1)))
    hook.remove()
    (states,) = seen
    place = states[:, :, 1, 0] + pool.positional_embedding[1 + 2]
    close(found[:, 1, 0], nn.functional.normalize(pool.c_proj(pool.v_proj(place)), dim=-1))


def test_the_embedded_model_knows_where_things_are() -> None:
    scorer, rng, right = Scorer.load("mini", device="cpu"), random.Random(3), {"surgery": 0, "states": 0}
    things = [
        world.Object(colour=c, shape="circle", cell=cell) for c, cell in zip(world.COLOURS, world.CELLS, strict=False)
    ]
    picture = np.array(world.render(world.Scene("gray", tuple(things)), rng))[None]
    texts = np.stack([each.vector for each in scorer.texts([f"a {thing.colour} circle" for thing in things])])
    patches = PatchTower("mini", scorer.dual.image)
    for way in right:
        heat = patches.embed_pixels(picture, way)[0].numpy() @ texts.T  # type: ignore[arg-type]
        for number, thing in enumerate(things):
            row, column = divmod(int(heat[..., number].argmax()), 8)
            right[way] += world.CELLS.index(thing.cell) == 3 * int((row + 0.5) * 3 / 8) + int((column + 0.5) * 3 / 8)
    assert right["surgery"] == len(things)
    assert right["states"] < len(things) / 2


def test_encoders_without_places_say_so(pixels: np.ndarray) -> None:
    line = r"model has no patches that can be read one by one; look with --method windows instead"
    plain = ImageTower(nn.Linear(3, 4), _PREPROCESS, lambda batch: batch.mean(dim=(2, 3)))
    settings = {"patch_size": 16, "max_num_patches": 9}
    ragged = ImageTower(open_clip_tower().model, PatchPreprocess.from_settings(settings, 16), lambda batch: batch)
    for tower in (plain, ragged, _timm("vit_tiny_patch16_224", timm_pool="token", timm_proj="linear")):
        with pytest.raises(ModelError, match=line):
            PatchTower("model", tower)
    with pytest.raises(ShapeError, match="pixels are uint8"):
        PatchTower("model", open_clip_tower()).embed_pixels(pixels[:, :16])
