"""The text encoder inside a checkpoint of one file (A1111, Forge, ComfyUI), exchanged in a copy of it.

A copy has the bytes of the original but for the encoder's tensors, which keep their names, dtypes and places.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clipcond.encode.text import TextTower
from clipcond.errors import ConfigError, ModelError
from clipcond.files import writing
from clipcond.models.export import Dtype, ReadyText, check_outputs, text_outputs
from clipcond.models.export_layouts import CHECKPOINTS, PROJECTION, layer_count, nested, to_open_clip
from clipcond.models.safetensors_header import Header, StoredTensor, read_header
from clipcond.models.text_encoder import build_text_model
from clipcond.models.to_transformers import open_clip_text_to_transformers

_DTYPES: Mapping[str, Dtype] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_NOT_OURS = ("position_ids", "logit_scale", "logit_bias", "attn_mask")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint of one file, by its header.

    encoders: the CLIP encoders in it → the prefix of their weights, and true where they have open_clip's names.
    """

    path: Path
    family: str
    header: Header
    encoders: Mapping[str, tuple[str, bool]]

    def weights(self, encoder: str) -> dict[str, StoredTensor]:
        """Return the stored weights of an encoder by their names without the prefix. Raises ConfigError if it has none."""
        if encoder not in self.encoders:
            raise ConfigError(
                f"{self.path} is {self.family} and has no {encoder}; expected {' or '.join(self.encoders)}"
            )
        prefix = self.encoders[encoder][0]
        return {
            name.removeprefix(prefix): stored
            for name, stored in self.header.tensors.items()
            if name.startswith(prefix) and not name.endswith(_NOT_OURS)
        }

    def dtype(self, encoder: str) -> Dtype:
        """Return the dtype of an encoder's weights. Raises ModelError for one that cannot be written exactly."""
        kinds = {stored.dtype for stored in self.weights(encoder).values()}
        if len(kinds) != 1 or not kinds <= _DTYPES.keys():
            raise ModelError(
                f"{self.path} stores {encoder} as {' and '.join(sorted(kinds))}; expected one of {', '.join(_DTYPES)}"
            )
        return _DTYPES[kinds.pop()]

    def layers(self, encoder: str) -> int:
        """Return the number of layers of an encoder."""
        names = self.weights(encoder)
        if self.encoders[encoder][1]:
            return len({name.split(".")[2] for name in names if name.startswith("transformer.resblocks.")})
        return layer_count(nested({name: torch.empty(0) for name in names}))


def read_checkpoint_file(path: Path) -> Checkpoint:
    """Read the header of a checkpoint. Raises ModelError for a file that holds no CLIP text encoder where one is known."""
    header = read_header(path)
    found: dict[str, dict[str, tuple[str, bool]]] = {}
    for (family, encoder), (prefix, open_clip) in CHECKPOINTS.items():
        if any(name.startswith(prefix) for name in header.tensors):
            found.setdefault(family, {})[encoder] = (prefix, open_clip)
    if not found:
        places = ", ".join(prefix for prefix, _ in CHECKPOINTS.values())
        raise ModelError(f"{path} holds no text encoder that is known: looked for {places}")
    family, encoders = next(iter(found.items()))
    return Checkpoint(path=path, family=family, header=header, encoders=encoders)


def write_into_checkpoint(
    path: Path, ready: ReadyText, checkpoint: Checkpoint, encoder: str, *, keep_projection: bool, overwrite: bool
) -> dict[str, float]:
    """Write a copy of a checkpoint with another text encoder in it, which is read back before the copy has its name.

    keep_projection: leave the checkpoint's own.   Returns the distances. Raises ModelError, OutputExists and OSError.
    """
    stored, new = checkpoint.weights(encoder), _named(ready, checkpoint, encoder)
    projection = "text_projection" if checkpoint.encoders[encoder][1] else PROJECTION
    if keep_projection or projection not in stored:
        new.pop(projection, None)
        stored.pop(projection, None)
    _check_names(checkpoint.path, encoder, stored, new)
    with writing(path, overwrite=overwrite) as file:
        with checkpoint.path.open("rb") as source:
            shutil.copyfileobj(source, file, 1 << 22)
        for name, value in new.items():
            file.seek(stored[name].start)
            file.write(value.contiguous().view(torch.uint8).numpy().tobytes())
        file.flush()
        return _check(Path(file.name), path.name, ready, checkpoint, encoder)


def _named(ready: ReadyText, checkpoint: Checkpoint, encoder: str) -> dict[str, Tensor]:
    """The new weights in the checkpoint's names and dtype."""
    kind = getattr(torch, checkpoint.dtype(encoder))
    state = to_open_clip(ready.state) if checkpoint.encoders[encoder][1] else ready.state
    flat = not checkpoint.encoders[encoder][1] and "embeddings.token_embedding.weight" in checkpoint.weights(encoder)
    return {key.removeprefix("text_model.") if flat else key: value.to(kind) for key, value in state.items()}


def _check_names(path: Path, encoder: str, stored: Mapping[str, StoredTensor], new: Mapping[str, Tensor]) -> None:
    odd = sorted(stored.keys() ^ new.keys())
    if odd:
        raise ModelError(f"{path} holds another {encoder}: {odd[0]} is in one of the two only ({len(odd)} in all)")
    for name, value in new.items():
        if stored[name].shape != tuple(value.shape):
            raise ModelError(f"{path} holds a {encoder} whose {name} is {stored[name].shape}, not {tuple(value.shape)}")


def _check(written: Path, name: str, ready: ReadyText, checkpoint: Checkpoint, encoder: str) -> dict[str, float]:
    """Read an encoder back from the copy and compare. Raises ModelError."""
    from safetensors import safe_open

    prefix, open_clip = checkpoint.encoders[encoder]
    with safe_open(written, framework="pt") as file:
        state = {each: file.get_tensor(prefix + each) for each in checkpoint.weights(encoder)}
    if open_clip:
        state = open_clip_text_to_transformers(state, int(ready.config["num_attention_heads"]))
    wanted = dict(ready.outputs)
    model = build_text_model(name, ready.config, nested(state))
    found = text_outputs(TextTower.from_transformers(model))
    if "text_embeds" in wanted and "text_embeds" not in found:
        wanted.pop("text_embeds")
    return check_outputs(name, found, wanted)
