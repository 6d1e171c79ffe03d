"""A text encoder alone, with its weights under one set of names, from anything that holds one.

Beside the specs of `load_dual`: a transformers CLIPTextModel folder, one encoder of a diffusers pipeline's folder, and a
`.safetensors` file in transformers' names, as ComfyUI reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.encode.text import TextTower
from clipcond.errors import ModelError
from clipcond.models.checks import check_finite_weights, check_numbers, check_shapes, one_line_errors, outline
from clipcond.models.export_layouts import PROJECTION, layer_count, nested, nested_name
from clipcond.models.json_file import read_json
from clipcond.models.load import load_dual
from clipcond.models.pipeline_folder import encoder_folder, is_pair, pair_run
from clipcond.models.to_transformers import clip_text_config, open_clip_text_to_transformers
from clipcond.prompt.tokenizer import CONTEXT
from clipcond.runtime.quiet import quiet_calls, quiet_logs
from clipcond.runtime.torchvision_repair import repair

WEIGHTS = ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextEncoder:
    """A CLIP text encoder, float32, and its config in the words of transformers' CLIPTextConfig.

    module: transformers' text model or open_clip's model, which `tower` wraps.   pipeline_layers: how many of its layers
    pipelines read, where its folder says so; None for as many as their family reads.
    """

    name: str
    module: nn.Module
    tower: TextTower
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    pipeline_layers: int | None = None

    def state(self) -> dict[str, Tensor]:
        """Return copies of the weights under transformers' nested names. Raises ModelError for towers of other shapes."""
        if hasattr(self.module, "visual") or hasattr(self.module, "transformer"):
            return open_clip_text_to_transformers(self.module.state_dict(), int(self.config["num_attention_heads"]))
        own = ("text_model.", "embeddings.", "encoder.", "final_layer_norm.", "text_projection.")
        state = {key: value for key, value in self.module.state_dict().items() if key.startswith(own)}
        return {key: value.detach().clone() for key, value in nested(state).items()}


def load_text_encoder(spec: str, encoder: str | None = None) -> TextEncoder:
    """Load the text encoder that a spec names, in float32 on the CPU, every weight in place.

    encoder: `clip_l`, `clip_g` or `clip_h`, of a pipeline's folder, or a run's, that has several.   Raises ModelError,
    ConfigError for an encoder that it lacks, ResourceMissing.
    """
    path = Path(spec.removeprefix("hf:")).expanduser()
    with one_line_errors(spec):
        if (path / "model_index.json").is_file():
            path = encoder_folder(path, encoder)
        if path.suffix == ".safetensors" and path.is_file():
            return _from_file(spec, path)
        if _is_text_model(path):
            return _from_folder(spec, path)
        dual = load_dual(str(pair_run(path, encoder)) if is_pair(path) else spec)
        tower = dual.text
        module: Any = dual.image.model
        if tower.context < CONTEXT:
            raise ModelError(f"{spec} reads {tower.context} positions; a pipeline's text encoder has {CONTEXT} or more")
        config = module.config.text_config.to_dict() if hasattr(module, "vision_model") else clip_text_config(module)
        return TextEncoder(
            name=spec, module=module, tower=tower, config=config, notes=dual.notes,
            pipeline_layers=dual.pipeline_layers,
        )  # fmt: skip


def build_text_model(where: str, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Build transformers' text model of a config around weights in nested names, float32; every weight must be there.

    With a projection where the weights have one.   where: of the weights, for messages.   Raises ModelError.
    """
    repair()
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    check_numbers(where, config)
    settings = CLIPTextConfig(**config)
    kind = CLIPTextModelWithProjection if PROJECTION in state else CLIPTextModel
    shapes = outline(where, lambda: kind(settings))
    names = {ours: theirs for theirs in shapes if (ours := nested_name(theirs)) is not None}
    expected = {ours: shapes[theirs] for ours, theirs in names.items()}
    check_shapes(where, "its config", {key: tuple(value.shape) for key, value in state.items()}, expected)
    with quiet_calls(), quiet_logs():
        model: nn.Module = kind(settings)
    model.load_state_dict({names[key]: value.float() for key, value in state.items()}, strict=False)
    return model.float().eval().requires_grad_(False)


def read_text_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the config and the weights, in nested names, of a transformers text model's folder. Raises ModelError."""
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise ModelError(f"{folder} holds no weights: looked for {', '.join(WEIGHTS)}")
    return read_json(folder / "config.json"), read_text_weights(found)


def read_text_weights(path: Path) -> dict[str, Tensor]:
    """Return a file's weights in nested names, in the dtypes they are stored in. Raises ModelError."""
    if path.suffix != ".safetensors":
        return nested(torch.load(path, map_location="cpu", weights_only=True))
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return nested(load_file(path))
    except SafetensorError as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error


def config_of_state(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the config of weights in nested names that come without one, as the published towers of their width have it.

    Raises ModelError where the names are not those of a CLIP text model.
    """
    table, positions = (state.get(f"text_model.embeddings.{name}_embedding.weight") for name in ("token", "position"))
    if table is None or positions is None or not layer_count(state):
        raise ModelError("these are no weights of a CLIP text model in transformers' names (text_model.embeddings.…)")
    width = int(table.shape[1])
    inner = state.get("text_model.encoder.layers.0.mlp.fc1.weight", table)
    return {
        "vocab_size": int(table.shape[0]),
        "hidden_size": width,
        "intermediate_size": int(inner.shape[0]),
        "projection_dim": int(state[PROJECTION].shape[0]) if PROJECTION in state else width,
        "num_hidden_layers": layer_count(state),
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": int(positions.shape[0]),
        "hidden_act": "quick_gelu" if width == 768 else "gelu",
        "eos_token_id": 49407,
        "bos_token_id": 49406,
        "pad_token_id": 49407,
    }


def wrap(name: str, module: nn.Module, config: Mapping[str, Any], notes: tuple[str, ...] = ()) -> TextEncoder:
    """Return a transformers text model as a TextEncoder. Raises ModelError for weights that are not finite."""
    check_finite_weights(name, module)
    return TextEncoder(name=name, module=module, tower=TextTower.from_transformers(module), config=config, notes=notes)


def _is_text_model(path: Path) -> bool:
    """True if a folder holds a text encoder of transformers and no whole CLIP model."""
    if not (path / "config.json").is_file() or (path / "open_clip_config.json").is_file():
        return False
    document = read_json(path / "config.json")
    return document.get("model_type") == "clip_text_model" or "CLIPText" in str(document.get("architectures"))


def _from_folder(spec: str, folder: Path) -> TextEncoder:
    config, state = read_text_folder(folder)
    if "WithProjection" in str(config.get("architectures")) and PROJECTION not in state:
        raise ModelError(f"{spec} lacks {PROJECTION}, which its class CLIPTextModelWithProjection has")
    return wrap(spec, build_text_model(str(folder), config, state), config)


def _from_file(spec: str, path: Path) -> TextEncoder:
    state = read_text_weights(path)
    config = config_of_state(state)
    note = (
        f"{spec} comes without a config: taken as a tower of {config['num_attention_heads']} heads and "
        f"{config['hidden_act']}, as published towers of width {config['hidden_size']}"
    )
    return wrap(spec, build_text_model(str(path), config, state), config, (note,))
