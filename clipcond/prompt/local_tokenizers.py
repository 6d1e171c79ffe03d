"""The `tokenizer.json` of a family's encoder on this machine: in a folder, or in the local hub cache. Nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

# where a family's tokenizer of T5 may stand in the local hub cache when none is named, and that of its language model
USUAL_T5: Mapping[str, tuple[str, ...]] = {
    "sd3": (
        "stabilityai/stable-diffusion-3-medium-diffusers",
        "stabilityai/stable-diffusion-3.5-medium",
        "stabilityai/stable-diffusion-3.5-large",
        "google/t5-v1_1-xxl",
    ),
    "flux": ("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell", "google/t5-v1_1-xxl"),
    "hidream": (
        "HiDream-ai/HiDream-I1-Full",
        "HiDream-ai/HiDream-I1-Dev",
        "HiDream-ai/HiDream-I1-Fast",
        "google/t5-v1_1-xxl",
    ),
    "pixart-alpha": ("PixArt-alpha/PixArt-XL-2-1024-MS", "PixArt-alpha/PixArt-XL-2-512x512", "google/t5-v1_1-xxl"),
    "pixart-sigma": (
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        "PixArt-alpha/PixArt-Sigma-XL-2-512-MS",
        "google/t5-v1_1-xxl",
    ),
    "chroma": ("lodestones/Chroma1-HD", "google/t5-v1_1-xxl"),
    "wan": ("Wan-AI/Wan2.1-T2V-14B-Diffusers", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
}
USUAL_LANGUAGE: Mapping[str, tuple[str, ...]] = {
    "hidream": ("meta-llama/Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
    "hunyuan-video": ("hunyuanvideo-community/HunyuanVideo",),
    "kandinsky5": ("kandinskylab/Kandinsky-5.0-T2I-Lite-sft-Diffusers",),
    "kandinsky5-video": ("kandinskylab/Kandinsky-5.0-T2V-Lite-sft-5s-Diffusers",),
    "kandinsky6": ("kandinskylab/Kandinsky-6.0-Pro-distill-5s-Diffusers",),
    "auraflow": ("fal/AuraFlow",),
    "sana": ("Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",),
    "lumina2": ("Alpha-VLLM/Lumina-Image-2.0",),
    "qwen-image": ("Qwen/Qwen-Image",),
    "z-image": ("Z-a-o/Z-Image-Turbo", "Tongyi-MAI/Z-Image-Turbo"),
    "flux2": ("black-forest-labs/FLUX.2-dev",),
    "flux2-klein": ("black-forest-labs/FLUX.2-klein-base-9B", "black-forest-labs/FLUX.2-klein-9B"),
}
ADVICE = "a tokenizer.json, its folder, or a hub name that is in the local cache"


def located(named: str | Path, places: Sequence[str]) -> Path | None:
    """Return the `tokenizer.json` that a file, a folder or a hub name means, None where there is none.

    places: folders in which one may stand, of a pipeline and of a model of its own (``), in this order.
    """
    path = Path(named)
    try:
        if path.is_file():
            return path
        return _in_folder(path, places) if path.is_dir() else cached(str(named), places)
    except ValueError:  # a name that no file can have
        return None


def cached(name: str, places: Sequence[str]) -> Path | None:
    """Return the `tokenizer.json` of a hub repository in the local cache."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()
    repository = cache / f"models--{name.replace('/', '--')}"
    try:
        snapshot = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return _in_folder(repository / "snapshots" / snapshot, places)


def _in_folder(folder: Path, places: Sequence[str]) -> Path | None:
    return next((path for name in places if (path := folder / name / "tokenizer.json").is_file()), None)
