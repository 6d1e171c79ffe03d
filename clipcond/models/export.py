"""A text encoder made ready for another program, written, and read back to prove that it is the same.

Every writer reloads what it wrote with its reader's own class and compares the layers that pipelines read, the pooled and
the projected vector with the encoder it came from; a difference beyond 1e-5 of the largest value is a ModelError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from clipcond.encode.text import TextTower
from clipcond.errors import ModelError
from clipcond.files import write_file
from clipcond.models.export_layouts import PROJECTION, layer_count, nested_name, without_last_layers
from clipcond.models.text_encoder import TextEncoder, build_text_model
from clipcond.prompt.tokenizer import BOS, EOS
from clipcond.runtime.quiet import quiet_calls, quiet_logs, without_bars

Dtype = Literal["float32", "float16", "bfloat16"]
TOLERANCE = 1e-5  # of the largest value of a tensor, or of 1
_LONGEST = 512  # of a probe: no more is asked of a file that claims more positions
WEIGHTS, CONFIG = "model.safetensors", "config.json"
_OURS = (
    "vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "hidden_act", "layer_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadyText:
    """Weights in nested names and in the dtype to write, the config that fits them, and the outputs they must give.

    outputs: of the source on `probes()`, by name.   rounding: how far the dtype alone moves each of them, 0 for float32.
    """

    name: str
    state: Mapping[str, Tensor]
    config: Mapping[str, Any]
    outputs: Mapping[str, Tensor]
    rounding: Mapping[str, float]

    @property
    def projected(self) -> bool:
        """True if the weights hold a projection."""
        return PROJECTION in self.state


def make_ready(
    encoder: TextEncoder,
    *,
    layers: int | None = None,
    dtype: Dtype = "float32",
    projection: bool = True,
    own_projection: Tensor | None = None,
) -> ReadyText:
    """Take what an export needs from an encoder, whose weights are rounded to the dtype in place.

    layers: to keep, all for None.   projection: keep the projection, if there is one.   own_projection: (P, D) of the
    target, in place of the encoder's.   Raises ModelError for more layers than there are.
    """
    dropped = encoder.tower.layers - (encoder.tower.layers if layers is None else layers)
    if not 0 <= dropped < encoder.tower.layers:
        raise ModelError(f"{encoder.name} has {encoder.tower.layers} layers, the target {layers}; expected no more")
    exact = text_outputs(encoder.tower, dropped)
    kind = getattr(torch, dtype)
    with torch.no_grad():
        for weight in encoder.module.parameters():
            weight.copy_(weight.to(kind))
    outputs = exact if dtype == "float32" else text_outputs(encoder.tower, dropped)
    state = without_last_layers(encoder.state(), dropped)
    if not projection:
        state.pop(PROJECTION, None)
    elif own_projection is not None:
        state[PROJECTION] = own_projection.float()
    state = {key: value.to(kind).contiguous() for key, value in state.items()}
    outputs = {name: value for name, value in outputs.items() if name != "text_embeds"} | (
        {"text_embeds": _projected(outputs, state, own_projection)} if PROJECTION in state else {}
    )
    rounding = {
        name: distance(outputs[name], exact[name]) for name in outputs if name in exact and own_projection is None
    }
    config = {key: encoder.config[key] for key in _OURS if key in encoder.config}
    config |= {"num_hidden_layers": layer_count(state), "bos_token_id": BOS, "eos_token_id": EOS}
    return ReadyText(name=encoder.name, state=state, config=config, outputs=outputs, rounding=rounding)


def _projected(outputs: Mapping[str, Tensor], state: Mapping[str, Tensor], own: Tensor | None) -> Tensor:
    """The projected vectors: the source's own, unless its last layers or its projection are another's."""
    if own is None and "text_embeds" in outputs:
        return outputs["text_embeds"]
    return outputs["pooler_output"] @ state[PROJECTION].float().T


def probes(context: int = 77) -> Tensor:
    """Return (5, L) int64 rows: the empty prompt, short and full ones, padded as either kind of tower is."""
    length = min(context, _LONGEST)
    draw = torch.Generator().manual_seed(0)
    rows = torch.full((5, length), EOS)
    rows[:, 0] = BOS
    for row, count in enumerate((0, 6, length - 2, 0, 6)):
        rows[row, 1 : 1 + count] = torch.randint(256, 49406, (count,), generator=draw)
        rows[row, 2 + count :] = EOS if row < 3 else 0
    return rows


@torch.no_grad()
def text_outputs(tower: TextTower, dropped: int = 0) -> dict[str, Tensor]:
    """Return what pipelines read of a tower on `probes()`, by transformers' names, float32 on the CPU.

    dropped: layers at the end that do not count.   Of the hidden states the last three; lower layers act through them.
    """
    ids = probes(tower.context)
    found = {
        f"hidden_states[-{skip + 1}]": tower.encode(ids, clip_skip=skip + dropped, final_norm=False).hidden
        for skip in range(min(3, tower.layers - dropped + 1))
    }
    last = tower.encode(ids, clip_skip=dropped)
    ends = (ids == EOS).int().argmax(dim=1)
    found["last_hidden_state"] = last.hidden
    found["pooler_output"] = last.hidden[torch.arange(len(ids)), ends]
    if last.projected is not None and not dropped:
        found["text_embeds"] = last.projected
    return {name: value.float().cpu() for name, value in found.items()}


def distance(found: Tensor, wanted: Tensor) -> float:
    """Return the largest absolute difference, in units of the largest value wanted where that is above 1."""
    return float((found - wanted).abs().max() / max(1.0, float(wanted.abs().max())))


def check_outputs(where: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the distance of each output that was wanted. Raises ModelError for one that is lost or differs."""
    lost = sorted(wanted.keys() - found.keys())
    if lost:
        raise ModelError(f"{where}, read back, gives no {lost[0]}; nothing was written")
    differences = {name: distance(found[name], wanted[name]) for name in wanted}
    worst = max(differences, key=lambda name: differences[name])
    if not differences[worst] <= TOLERANCE:
        raise ModelError(
            f"{where}, read back, differs from its source by {differences[worst]:.1e} in {worst}, expected at most "
            f"{TOLERANCE:.0e}; nothing was written"
        )
    return differences


def folder_config(ready: ReadyText, target: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the `config.json` of a text encoder's folder: the target's own, or one complete in itself.

    The target's ids and settings stay, the activation and the layer count are those of the weights.
    """
    kind = "CLIPTextModelWithProjection" if ready.projected else "CLIPTextModel"
    base = dict(target) if target is not None else {
        "architectures": [kind], "model_type": "clip_text_model", "attention_dropout": 0.0, "initializer_factor": 1.0,
        "initializer_range": 0.02, **ready.config,
    }  # fmt: skip
    base["hidden_act"] = ready.config["hidden_act"]
    return base | {"architectures": base.get("architectures", [kind])}


def write_text_folder(folder: Path, ready: ReadyText, *, target: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Write config.json and model.safetensors, nested, into a folder that is there; returns the distances of the reload.

    target: the config of the encoder that it takes the place of.   Raises ModelError, OutputExists, OSError.
    """
    write_file(folder / CONFIG, json.dumps(folder_config(ready, target), indent=2) + "\n")
    write_weights(folder / WEIGHTS, ready.state)
    return check_text_folder(folder, ready)


def write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a safetensors file marked as torch's, as the readers of transformers ask for. Raises OutputExists, OSError."""
    from safetensors.torch import save

    write_file(path, save(dict(state), metadata={"format": "pt"}))


def check_text_folder(folder: Path, ready: ReadyText) -> dict[str, float]:
    """Load a folder as transformers does and compare. Raises ModelError if a weight is missing or outputs differ."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    architectures = str(json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("architectures"))
    kind = CLIPTextModelWithProjection if "WithProjection" in architectures else CLIPTextModel
    with quiet_calls(), quiet_logs(), without_bars():
        model, report = kind.from_pretrained(
            folder, output_loading_info=True, torch_dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
    missing = sorted({*report["missing_keys"], *map(str, report.get("mismatched_keys", ()))})
    if missing:
        raise ModelError(f"{folder.name}, read back by transformers, lacks {missing[0]} ({len(missing)} in all)")
    wanted = dict(ready.outputs)
    if kind is CLIPTextModel:
        wanted.pop("text_embeds", None)
    return check_outputs(folder.name, text_outputs(TextTower.from_transformers(model.eval())), wanted)


def write_single_file(path: Path, ready: ReadyText, *, overwrite: bool) -> dict[str, float]:
    """Write one safetensors file in nested names, as ComfyUI reads it, after it was read back under another name.

    Returns the distances. Raises ModelError, OutputExists, OSError.
    """
    from safetensors.torch import save

    from clipcond.files import writing

    with writing(path, overwrite=overwrite) as file:
        file.write(save(dict(ready.state), metadata={"format": "pt"}))
        file.flush()
        return check_single_file(Path(file.name), path.name, ready)


def check_single_file(written: Path, name: str, ready: ReadyText) -> dict[str, float]:
    """Build the model of a file in nested names and compare it. Raises ModelError."""
    from safetensors.torch import load_file

    state = {key: value for key, value in load_file(written).items() if nested_name(key) == key}
    model = build_text_model(name, ready.config, state)
    return check_outputs(name, text_outputs(TextTower.from_transformers(model)), ready.outputs)


def fits(encoder: TextEncoder, config: Mapping[str, Any], *, may_drop: bool = False) -> str | None:
    """Return the reason against an encoder in the place of another of this config; None if it fits.

    may_drop: the target may have one layer less, as Stable Diffusion 2's encoder. An encoder whose folder says how many
    layers pipelines read fits one of that many.
    """
    own = encoder.config
    for name in ("hidden_size", "intermediate_size", "num_attention_heads", "max_position_embeddings", "vocab_size"):
        if name in config and config[name] != own[name]:
            return f"its {name} is {own[name]}, the target's {config[name]}"
    layers, wanted = int(own["num_hidden_layers"]), int(config.get("num_hidden_layers", 12))
    if wanted not in (layers, encoder.pipeline_layers) and not (may_drop and layers == wanted + 1):
        return f"it has {layers} layers, the target {wanted}"
    return None
