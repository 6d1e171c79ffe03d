"""Models for tests: tiny, random on purpose, written once a session. And how hard Hypothesis tries."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# no deadline: a shared machine says little about one example; `--hypothesis-profile=thorough` tries more of them
settings.register_profile("clipcond", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile("clipcond")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the guides first: each takes as long as hundreds of tests, and the last one would be waited for."""
    items.sort(key=lambda item: "test_readme" not in item.nodeid)


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
def _embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture(autouse=True)
def _own_embedding_cache(_embeddings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the embeddings that the user of this machine keeps."""
    monkeypatch.setenv("CLIPCOND_CACHE", str(_embeddings))


@pytest.fixture(scope="session")
def dual_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip folder with both encoders: random weights of seed 0, stored in float16, CLIP's own vocabulary."""
    from clipcond.runtime.torchvision_repair import repair

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


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion 1 folder: random weights of seed 0, width 32, the full vocabulary, 16×16 pictures."""
    from clipcond.runtime.torchvision_repair import repair

    repair()
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("pipelines") / "sd"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = StableDiffusionPipeline(
            text_encoder=CLIPTextModel(
                CLIPTextConfig(
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=3,
                    num_attention_heads=4,
                    bos_token_id=49406,
                    eos_token_id=49407,
                    pad_token_id=49407,
                )
            ),
            tokenizer=_clip_tokenizer(folder.parent / "vocabulary"),
            unet=UNet2DConditionModel(
                sample_size=8,
                block_out_channels=(32,),
                down_block_types=("CrossAttnDownBlock2D",),
                up_block_types=("CrossAttnUpBlock2D",),
                layers_per_block=1,
                cross_attention_dim=32,
                attention_head_dim=8,
                norm_num_groups=8,
            ),
            vae=AutoencoderKL(
                block_out_channels=(8, 8),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                latent_channels=4,
                norm_num_groups=4,
            ),
            scheduler=DDIMScheduler(
                beta_schedule="scaled_linear",
                clip_sample=False,
                prediction_type="v_prediction",
                timestep_spacing="trailing",
                rescale_betas_zero_snr=True,
                steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.save_pretrained(folder)
    return folder


def _clip_tokenizer(folder: Path) -> object:
    """transformers' CLIPTokenizer over open_clip's vocabulary file, without a network."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    source = SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    merges = sorted(source.bpe_ranks, key=source.bpe_ranks.__getitem__)
    folder.mkdir()
    vocabulary = {special.get(piece, piece): number for piece, number in source.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


@pytest.fixture(scope="session")
def sd_pipe(sd_folder: Path) -> Any:
    """The pipeline of `sd_folder`, loaded; shared, so leave it as it is."""
    from clipcond.diffusion.pipelines import load_pipeline

    pipe = load_pipeline(sd_folder, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def file_size_limit() -> Callable[[int], AbstractContextManager[None]]:
    """No file grows beyond a number of bytes: what a full disk does to a writer, without filling one."""
    resource = pytest.importorskip("resource", reason="needs a POSIX system")

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
