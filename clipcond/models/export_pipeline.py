"""A copy of a diffusers pipeline's folder with another text encoder in it; what does not change is linked."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from clipcond.files import copy_file, link_file
from clipcond.models.export import (
    CONFIG,
    WEIGHTS,
    Dtype,
    ReadyText,
    check_text_folder,
    write_text_folder,
    write_weights,
)
from clipcond.models.export_layouts import PROJECTION
from clipcond.models.json_file import read_json
from clipcond.models.pipeline_folder import PipelineFolder
from clipcond.models.safetensors_header import read_header
from clipcond.models.text_encoder import read_text_folder

_WEIGHTS = (".safetensors", ".bin", ".pt", ".msgpack", ".h5", ".onnx", ".index.json")
_DTYPES: dict[str, Dtype] = {"F16": "float16", "BF16": "bfloat16"}


def stored_dtype(folder: Path) -> Dtype:
    """Return the dtype in which a text encoder's folder holds its weights, float32 where it cannot be told."""
    for path in sorted(folder.glob("*.safetensors")):
        kinds = {each.dtype for each in read_header(path).tensors.values()}
        if len(kinds) == 1:
            return _DTYPES.get(kinds.pop(), "float32")
    return "float32"


def own_projection(folder: Path) -> Tensor | None:
    """Return the (P, D) projection that a text encoder's folder holds, None where it has none. Raises ModelError."""
    return read_text_folder(folder)[1].get(PROJECTION)


def write_pipeline(
    new: Path, source: PipelineFolder, encoder: str, ready: ReadyText, *, link: bool
) -> dict[str, float]:
    """Fill the empty folder `new` with the pipeline and another text encoder; returns the distances of its reload.

    link: let files that do not change be the source's own, under a second name; copies otherwise.
    Raises ModelError, OSError.
    """
    replaced = source.text_encoder(encoder)
    for folder, _, names in os.walk(source.path):
        inside = new / Path(folder).relative_to(source.path)
        inside.mkdir(exist_ok=True)
        for name in sorted(names):
            path = Path(folder, name)
            if path.parent == replaced and (name == CONFIG or name.endswith(_WEIGHTS)):
                continue
            if link:
                link_file(path, inside / name)
            else:
                copy_file(path, inside / name)
    return _write_encoder(new / replaced.name, replaced, ready)


def _write_encoder(folder: Path, replaced: Path, ready: ReadyText) -> dict[str, float]:
    """Write the encoder under the names of weights that it takes the place of, variants such as `fp16` included."""
    differences = write_text_folder(folder, ready, target=read_json(replaced / CONFIG))
    variants = {path.name for path in replaced.glob("model.*.safetensors") if "-of-" not in path.name}
    for name in sorted(variants):
        write_weights(folder / name, ready.state)
    if variants and not (replaced / WEIGHTS).is_file():
        (folder / WEIGHTS).unlink()
    else:
        check_text_folder(folder, ready)
    return differences
