"""A tiny Stable Diffusion 1 pipeline whose text encoder is made of a rule, so that anyone can build the same without a file.

The rule, also in docs/conformance.md: value i of a parameter, in row-major order, is centre + spread·(2u − 1), computed in
float64 and stored as float32, with u = floor(splitmix64(fnv1a64(name) + seed + i) / 2⁴⁰) / 2²⁴. Names are those of
transformers' CLIPTextModel without the leading `text_model.`, in UTF-8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from clipcond.resources import embedded
from clipcond.runtime.quiet import quiet_loading

SEED = 14
INVERSION = "<toy>"  # a textual inversion of one vector: the row after CLIP's own vocabulary
VOCABULARY = 49408
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "layer_norm_eps": 1e-5,
    "hidden_act": "quick_gelu",
}
# centre and spread; biases of norms keep the mean of states away from zero, where A1111's weighting divides by it
_EMBEDDINGS, _NORM_WEIGHTS, _NORM_BIASES, _OTHERS = (0.0, 1.0), (1.0, 0.4), (0.2, 0.4), (0.0, 0.4)
_OFFSET, _PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, 0xFFFFFFFFFFFFFFFF


def seeded_pipeline(seed: int = SEED) -> Any:
    """Return a StableDiffusionPipeline with a text encoder made of the rule, CLIP's tokenizer and `<toy>`.

    Its U-Net is there because a pipeline has one; its weights are of torch's own and nothing may depend on them.
    """
    with quiet_loading(), torch.random.fork_rng(devices=[]):
        from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
        from transformers import CLIPTokenizer

        tokenizer = CLIPTokenizer.from_pretrained(embedded("pipeline") / "tokenizer", trust_remote_code=False)
        tokenizer.add_tokens([INVERSION])
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=SHAPE["hidden_size"],
        )
        return StableDiffusionPipeline(
            vae=None,
            text_encoder=seeded_encoder(seed),
            tokenizer=tokenizer,
            unet=unet,
            scheduler=DDIMScheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def seeded_encoder(seed: int = SEED) -> Any:
    """Return a CLIPTextModel of `SHAPE`, each weight by the rule."""
    with quiet_loading():
        from transformers import CLIPTextConfig, CLIPTextModel

    ids = {"bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1, "pad_token_id": VOCABULARY - 1}
    with torch.random.fork_rng(devices=[]):  # what transformers draws is written over
        encoder = CLIPTextModel(CLIPTextConfig(vocab_size=VOCABULARY + 1, **SHAPE, **ids)).eval()
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            weight.copy_(torch.from_numpy(seeded_values(name.removeprefix("text_model."), tuple(weight.shape), seed)))
    return encoder


def seeded_values(name: str, shape: tuple[int, ...], seed: int = SEED) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a parameter of a name and shape by the rule."""
    centre, spread = _EMBEDDINGS if "embedding" in name else _OTHERS
    if "norm" in name:
        centre, spread = _NORM_WEIGHTS if name.endswith("weight") else _NORM_BIASES
    count = int(np.prod(shape))
    start = (_fnv1a64(name) + seed) & _MASK
    with np.errstate(over="ignore"):
        mixed = _splitmix64(np.uint64(start) + np.arange(count, dtype=np.uint64))
    unit = (mixed >> np.uint64(40)).astype(np.float64) / 2**24
    return (centre + spread * (2 * unit - 1)).astype(np.float32).reshape(shape)


def _fnv1a64(name: str) -> int:
    """Hash a name with 64-bit FNV-1a."""
    found = _OFFSET
    for byte in name.encode("utf-8"):
        found = ((found ^ byte) * _PRIME) & _MASK
    return found


def _splitmix64(state: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The output of SplitMix64 for each state, the increment included."""
    mixed = state + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
