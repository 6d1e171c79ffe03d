"""Small random encoders and rows for the tests of the encoding engine."""

from __future__ import annotations

from typing import Any

import torch

from clipcond.encode.rows import TokenSequence
from clipcond.runtime.torchvision_repair import repair

repair()

BOS, EOS = 49406, 49407
VISION = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 3}


def clip_model(*, projection: bool = True, **options: Any) -> torch.nn.Module:
    """transformers' text model: width 32, 3 layers, wider embeddings than as initialised, so that texts differ."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    settings = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = CLIPTextConfig(**{**settings, "projection_dim": 24, **options})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()
        with torch.no_grad():
            getattr(model, "text_model", model).embeddings.token_embedding.weight.normal_(std=0.5)
    return model


def open_clip_model(**options: Any) -> torch.nn.Module:
    """open_clip's dual encoder of the same size."""
    import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = open_clip.CLIP(embed_dim=24, vision_cfg=VISION, text_cfg={**TEXT, **options}).eval()
        with torch.no_grad():
            model.token_embedding.weight.normal_(std=0.5)
    return model


def row_of(words: int, *, seed: int = 0, pad: int = EOS, length: int = 77) -> TokenSequence:
    """A row of so many random words, the same for the same seed; rows of one seed begin alike."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 49000, (length - 2,), generator=generator)[:words].tolist()
    return TokenSequence((BOS, *ids, EOS, *[pad] * (length - 2 - words)))


def close(a: torch.Tensor | None, b: torch.Tensor | None, atol: float = 1e-5) -> None:
    assert a is not None
    assert b is not None
    torch.testing.assert_close(a, b, rtol=0, atol=atol)
