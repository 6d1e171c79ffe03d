"""Put the trained scorer in the place of `clip/`, in float16; the pipeline beside it is not touched.

    python recipes/mini/pack_scorer.py --scorer runs/mini/scorer/final --out clipcond/mini/weights

Nothing is written unless the scorer's text tower, read after its first four layers, is the pipeline's text encoder bit for
bit, so that a tower trained from this one can be exported into the pipeline.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from clipcond.runtime.torchvision_repair import repair

repair()

from pack import used_ids
from safetensors.torch import load_file
from scorer_text import READ_BY_THE_PIPELINE

from clipcond.models.export_layouts import without_last_layers
from clipcond.models.open_clip_folder import read_config, read_open_clip_folder, write_open_clip_folder
from clipcond.models.to_transformers import open_clip_text_to_transformers


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scorer", type=Path, default=Path("runs/mini/scorer/final"))
    options.add_argument("--out", type=Path, default=Path("clipcond/mini/weights"))
    given = options.parse_args()

    model, config = read_open_clip_folder(given.scorer).half(), read_config(given.scorer)
    own = len(model.transformer.resblocks) - READ_BY_THE_PIPELINE
    ids, table = torch.tensor(used_ids()), model.token_embedding.weight
    with torch.no_grad():
        kept = table[ids].clone()
        table.zero_()
        table[ids] = kept
    state = open_clip_text_to_transformers(model.state_dict(), heads=config["model_cfg"]["text_cfg"]["heads"])
    read = without_last_layers(state, own)
    for name, value in load_file(given.out / "pipeline" / "text_encoder" / "model.safetensors").items():
        assert torch.equal(read[name], value), f"{name} is not the pipeline's"
    config["pipeline_layers"] = READ_BY_THE_PIPELINE
    write_open_clip_folder(model, config, given.out / "clip", packed=True)
    size = sum(path.stat().st_size for path in given.out.rglob("*") if path.is_file())
    print(f"{len(ids)} of {len(table)} token rows used; {size / 2**20:.1f} MiB in all")


if __name__ == "__main__":
    main()
