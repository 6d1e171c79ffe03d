"""Put the trained parts together as the two folders that ship: `clip/` (open_clip) and `pipeline/` (diffusers), in float16.

    python recipes/mini/pack.py --dual runs/mini/dual/model --autoencoder runs/mini/autoencoder/final \
        --denoiser runs/mini/denoiser/final --out clipcond/mini/weights

`pack_scorer.py` then puts the scorer in the place of `clip/`.

Rows of the token table that no caption of the scene world uses are zero: they compress to nothing in a wheel, and the
open_clip folder leaves them out altogether. Nothing is written unless the exported text encoder equals the trained one.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path

import torch

from clipcond.runtime.torchvision_repair import repair

repair()

from denoiser import chunked, scheduler
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load, save
from text_tower import _encode, states
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from clipcond.mini import world
from clipcond.models.export_layouts import nested
from clipcond.models.open_clip_folder import read_config, read_open_clip_folder, write_open_clip_folder
from clipcond.models.to_transformers import clip_text_config, open_clip_text_to_transformers
from clipcond.prompt.tokenizer import BOS, EOS


def used_ids() -> list[int]:
    """Every token that captions of the scene world hold, and the two special ones."""
    rng = random.Random("vocabulary")
    ids = {BOS, EOS}
    for words in ("terse", "plain", "wordy"):
        for _ in range(6000):
            ids.update(_encode(world.caption(world.sample(rng), rng, words)))
    return sorted(ids)


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's own vocabulary in the files that every transformers release reads."""
    source = SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    merges = sorted(source.bpe_ranks, key=source.bpe_ranks.__getitem__)
    folder.mkdir(parents=True)
    vocabulary = {special.get(piece, piece): number for piece, number in source.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]))
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def nest(folder: Path) -> None:
    """Store a text encoder's weights in nested names: transformers before 5.6 reads flat ones as nothing at all."""
    path = folder / "model.safetensors"
    path.write_bytes(save(nested(load(path.read_bytes())), metadata={"format": "pt"}))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--dual", type=Path, required=True)
    options.add_argument("--autoencoder", type=Path, required=True)
    options.add_argument("--denoiser", type=Path, required=True)
    options.add_argument("--guidance", type=float, default=2.0)
    options.add_argument("--out", type=Path, default=Path("clipcond/mini/weights"))
    given = options.parse_args()

    dual = read_open_clip_folder(given.dual).eval()
    ids = torch.tensor(used_ids())
    table = dual.token_embedding.weight
    with torch.no_grad():
        kept = table[ids].clone()
        table.zero_()
        table[ids] = kept
        for parameter in dual.parameters():
            parameter.copy_(parameter.half().float())  # both folders hold the same rounded numbers

    text = CLIPTextModel(CLIPTextConfig(**clip_text_config(dual))).eval()
    renamed = open_clip_text_to_transformers(dual.state_dict(), heads=clip_text_config(dual)["num_attention_heads"])
    renamed.pop("text_projection.weight")
    wanted = text.state_dict()
    text.load_state_dict(
        {name if name in wanted else name.removeprefix("text_model."): w for name, w in renamed.items()}
    )
    rng = random.Random(0)
    for words in ("terse", "plain", "wordy"):
        tokens = torch.tensor(chunked(_encode(world.caption(world.sample(rng), rng, words))))
        with torch.no_grad():
            difference = (text(tokens).last_hidden_state - states(dual, tokens)).abs().max()
        assert difference < 1e-5, f"the exported text encoder differs by {difference:.2e}"
        print(f"{words}: exported text encoder differs by {difference:.1e}")

    shutil.rmtree(given.out, ignore_errors=True)
    write_open_clip_folder(dual.half(), read_config(given.dual), given.out / "clip", packed=True)
    pipeline = given.out / "pipeline"
    tokenizer = write_tokenizer(pipeline / "tokenizer")
    StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(given.autoencoder),
        unet=UNet2DConditionModel.from_pretrained(given.denoiser),
        text_encoder=text,
        tokenizer=tokenizer,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(dtype=torch.float16).save_pretrained(pipeline)
    nest(pipeline / "text_encoder")
    config = (
        pipeline / "text_encoder" / "config.json"
    )  # float32 for whoever loads it without a dtype, as diffusers' parts
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n")
    (pipeline / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)  # vocab.json and merges.txt hold the same
    (pipeline / "clipcond.json").write_text(json.dumps({"guidance_scale": given.guidance, "steps": 20}) + "\n")
    sizes = {str(p.relative_to(given.out)): p.stat().st_size for p in sorted(given.out.rglob("*")) if p.is_file()}
    print(json.dumps(sizes, indent=1))
    print(f"{len(ids)} of {len(table)} token rows used; {sum(sizes.values()) / 2**20:.1f} MiB in all")


if __name__ == "__main__":
    main()
