"""Models for tests: tiny, random on purpose, written once a session."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

DUAL_CONFIG = {
    "model_cfg": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16, "mlp_ratio": 2.0},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {
        "size": 32,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


@pytest.fixture(scope="session")
def dual_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip folder with both encoders: random weights of seed 0, stored in float16, CLIP's own vocabulary."""
    from clipcond.encode.torchvision_repair import repair

    repair()
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("models") / "dual"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(DUAL_CONFIG), encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(**DUAL_CONFIG["model_cfg"])
        with torch.no_grad():  # as initialised, short texts hardly differ
            model.token_embedding.weight.normal_(std=0.5)
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder
