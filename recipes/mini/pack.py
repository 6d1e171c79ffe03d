"""Put the trained parts together as the two folders that ship: `clip/` (open_clip) and `pipeline/` (diffusers), in float16.

    python recipes/mini/pack.py --dual runs/mini/dual/model --autoencoder runs/mini/autoencoder/final \
        --denoiser runs/mini/denoiser/final --out clipcond/mini/weights

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

from clipcond.encode.torchvision_repair import repair

repair()

from denoiser import chunked, scheduler
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from text_tower import _encode, states
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from clipcond.encode.convert import clip_text_config, open_clip_text_to_transformers
from clipcond.encode.folder import read_config, read_open_clip_folder, write_open_clip_folder
from clipcond.mini import world
from clipcond.prompt.tokenizer import BOS, EOS, vocabulary_files


def used_ids() -> list[int]:
    """Every token that captions of the scene world hold, and the two special ones."""
    rng = random.Random("vocabulary")
    ids = {BOS, EOS}
    for words in ("terse", "plain", "wordy"):
        for _ in range(6000):
            ids.update(_encode(world.caption(world.sample(rng), rng, words)))
    return sorted(ids)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--dual", type=Path, required=True)
    options.add_argument("--autoencoder", type=Path, required=True)
    options.add_argument("--denoiser", type=Path, required=True)
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
    vocabulary, merges = vocabulary_files(given.out / "pipeline" / "tokenizer")
    tokenizer = CLIPTokenizer(vocab=str(vocabulary), merges=str(merges), pad_token="<|endoftext|>", model_max_length=77)
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(given.autoencoder),
        unet=UNet2DConditionModel.from_pretrained(given.denoiser),
        text_encoder=text,
        tokenizer=tokenizer,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(dtype=torch.float16)
    pipe.save_pretrained(given.out / "pipeline", safe_serialization=True)
    sizes = {str(p.relative_to(given.out)): p.stat().st_size for p in sorted(given.out.rglob("*")) if p.is_file()}
    print(json.dumps(sizes, indent=1))
    print(f"{len(ids)} of {len(table)} token rows used; {sum(sizes.values()) / 2**20:.1f} MiB in all")


if __name__ == "__main__":
    main()
