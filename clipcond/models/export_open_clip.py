"""Both towers as an open_clip folder, from open_clip's own models and from transformers' CLIPModel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.errors import ModelError
from clipcond.images.preprocess import Preprocess
from clipcond.models.dual import DualEncoder
from clipcond.models.export import check_outputs, text_outputs
from clipcond.models.export_layouts import nested, to_open_clip
from clipcond.models.load import load_dual
from clipcond.models.open_clip_folder import write_open_clip_folder
from clipcond.models.trainable import load_trainable
from clipcond.runtime.torchvision_repair import repair

_VISION = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
}


def write_open_clip(folder: Path, spec: str) -> dict[str, float]:
    """Fill a folder with the open_clip model of a spec, read it back, and compare both towers with the source.

    Returns the distances. Raises ModelError for towers that open_clip cannot express, and for a difference.
    """
    dual = load_dual(spec)
    if hasattr(dual.image.model, "vision_model"):
        model, config = _from_transformers(dual)
    else:
        trainable = load_trainable(spec)
        model, config = trainable.model, trainable.config
    write_open_clip_folder(model, config, folder)
    return check_outputs(folder.name, _outputs(load_dual(str(folder))), _outputs(dual))


@torch.no_grad()
def _outputs(dual: DualEncoder) -> dict[str, Tensor]:
    """The text tower's outputs and the image tower's features of noise."""
    seen = dual.image.preprocess
    pixels = torch.randn(2, 3, seen.height, seen.width, generator=torch.Generator().manual_seed(0))
    model: Any = dual.image.model
    if hasattr(model, "vision_model"):
        features = model.visual_projection(model.vision_model(pixels).pooler_output)
    else:
        features = model.encode_image(pixels)
    return text_outputs(dual.text) | {"image_embeds": features.float()}


def _from_transformers(dual: DualEncoder) -> tuple[Any, dict[str, Any]]:
    """Build the open_clip model of a transformers CLIPModel. Raises ModelError where their shapes differ."""
    source: Any = dual.image.model
    config = {"model_cfg": _model_config(source.config), "preprocess_cfg": _preprocess_config(dual.image.preprocess)}
    repair()
    import open_clip

    model = open_clip.CLIP(**config["model_cfg"])
    state = _renamed(source)
    missing = sorted(model.state_dict().keys() - state.keys())
    if missing:
        raise ModelError(f"{dual.name} has no {missing[0]}, which an open_clip model needs")
    model.load_state_dict(state)
    return model.eval(), config


def _renamed(source: nn.Module) -> dict[str, Tensor]:
    """Both towers' weights and the temperature in open_clip's names."""
    state = {key: value.detach().clone() for key, value in source.state_dict().items()}
    text = to_open_clip(nested({k: v for k, v in state.items() if k.startswith(("text_model.", "text_projection."))}))
    layers = {
        key.replace("vision_model.", "text_model.", 1): value
        for key, value in state.items()
        if key.startswith("vision_model.encoder.")
    }
    vision = {f"visual.{key}": value for key, value in to_open_clip(layers).items()}
    vision |= {theirs: state[ours] for ours, theirs in _VISION.items()}
    vision["visual.proj"] = state["visual_projection.weight"].T.contiguous()
    return text | vision | {"logit_scale": state["logit_scale"]}


def _model_config(config: Any) -> dict[str, Any]:
    """The `model_cfg` of a CLIPConfig. Raises ModelError for what open_clip's CLIP cannot be told."""
    text, vision = config.text_config, config.vision_config
    activations = {text.hidden_act, vision.hidden_act}
    norms = {text.layer_norm_eps, vision.layer_norm_eps}
    if len(activations) > 1 or not activations <= {"gelu", "quick_gelu"} or norms != {1e-5}:
        raise ModelError(
            f"an open_clip model has one activation and norms of 1e-05; these towers have {', '.join(sorted(activations))} "
            f"and {', '.join(f'{each:g}' for each in sorted(norms))}"
        )
    return {
        "embed_dim": config.projection_dim,
        "quick_gelu": activations == {"quick_gelu"},
        "vision_cfg": {
            "image_size": vision.image_size, "patch_size": vision.patch_size, "width": vision.hidden_size,
            "layers": vision.num_hidden_layers, "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings, "vocab_size": text.vocab_size, "width": text.hidden_size,
            "heads": text.num_attention_heads, "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
        },
    }  # fmt: skip


def _preprocess_config(preprocess: Preprocess) -> Mapping[str, Any]:
    """The `preprocess_cfg` of a square crop, as transformers' CLIP has it."""
    return {
        "size": preprocess.height, "mean": list(preprocess.mean), "std": list(preprocess.std),
        "interpolation": preprocess.interpolation, "resize_mode": preprocess.policy,
    }  # fmt: skip
