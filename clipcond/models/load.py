"""Both encoders of a CLIP model from the one name by which models are known everywhere in clipcond.

`mini`, `ViT-L-14/openai`, `ViT-L-14@checkpoint.pt`, `hf:openai/clip-vit-large-patch14`, `./folder`. Weights are always
loaded in full and checked, never left random; what cannot be loaded is a ModelError of one line.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clipcond.encode.image import ImageTower
from clipcond.encode.text import TextTower
from clipcond.errors import ClipCondError, ModelError
from clipcond.models.open_clip_folder import CONFIG, WEIGHTS, read_config, read_open_clip_folder
from clipcond.prompt.tokenizer import CONTEXT, VOCABULARY
from clipcond.resources import embedded
from clipcond.runtime.hub import offline_where_unreachable, why_not
from clipcond.runtime.quiet import quiet_logs, without_bars
from clipcond.runtime.torchvision_repair import repair
from clipcond.wording import first_line

if TYPE_CHECKING:
    from open_clip import CLIP

FORMS = (
    "mini, NAME/PRETRAINED and NAME@CHECKPOINT (open_clip), hf:ID or hf:FOLDER (a transformers CLIPModel), "
    "or a folder that holds one of these"
)
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
DEFAULT_PREPROCESS = {  # what open_clip's own folders leave out of `preprocess_cfg` when it is this
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DualEncoder:
    """A text and an image encoder that share a space."""

    name: str  # the spec it was loaded by
    text: TextTower
    image: ImageTower
    logit_scale: float  # exp of the learned temperature; 100 for OpenAI's models
    normalisation: Literal["openai", "transformers"]  # how its prompts are tokenised


def load_dual(spec: str, *, device: str = "cpu") -> DualEncoder:
    """Load both encoders of the model that `spec` names, in float32, ready for inference.

    Raises ModelError if there is no such model, if it cannot be fetched or read, if a weight is missing, or if it is no
    dual encoder over CLIP's own vocabulary; ResourceMissing if the embedded model is not installed.
    """
    spec = spec.strip()
    if not spec:
        raise ModelError(f"the model name is empty; expected {FORMS}")
    try:
        if spec == "mini":
            return _from_folder(spec, embedded("clip"), device)
        if spec.startswith("hf:"):
            return _from_transformers(spec, spec[3:], device)
        path = Path(spec).expanduser()
        if path.is_dir():
            return _from_folder(spec, path, device)
        if path.is_file():
            raise ModelError(f"{spec} is a file; name its architecture too, as in ViT-B-32@{spec}")
        if "@" in spec:
            return _from_checkpoint(spec, device)
        if spec.startswith((".", "/", "~")):
            raise ModelError(f"no model {spec!r}: there is no such folder")
        if "/" not in spec:
            raise ModelError(f"no model {spec!r}: expected {FORMS}{_did_you_mean(spec)}")
        return _from_pretrained(spec, device)
    except ClipCondError:
        raise
    except Exception as error:  # the libraries below raise many kinds; a user needs one line either way
        raise ModelError(f"model {spec!r} cannot be loaded: {first_line(error)}") from error


def load_open_clip_folder(path: str | Path) -> CLIP:
    """The open_clip model of a folder (`open_clip_config.json` beside its weights), float32 on the CPU.

    Also takes the file names that open_clip uses on the hub. Raises ModelError as `load_dual` does.
    """
    path = Path(path)
    read_config(path)
    try:
        if (path / WEIGHTS).is_file() or not _stored_weights(path):
            return read_open_clip_folder(path)
        with quiet_logs():
            import open_clip

            model = open_clip.create_model(f"local-dir:{path}", require_pretrained=True)
    except ClipCondError:
        raise
    except Exception as error:
        raise ModelError(f"{path} cannot be loaded: {first_line(error)}") from error
    return model


def _stored_weights(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".pth"))


def _from_folder(spec: str, folder: Path, device: str) -> DualEncoder:
    """Whatever the folder holds: an open_clip model, a training run with one, or a transformers model."""
    if (folder / CONFIG).is_file():
        config = read_config(folder)
        _check_open_clip(spec, config["model_cfg"])
        model = load_open_clip_folder(folder)
        size: Any = model.visual.image_size
        return _dual(spec, model, {**DEFAULT_PREPROCESS, "size": size, **(config.get("preprocess_cfg") or {})}, device)
    if (folder / "model" / CONFIG).is_file():
        return _from_folder(spec, folder / "model", device)
    if (folder / "model_index.json").is_file():
        raise ModelError(
            f"{spec} is a diffusers pipeline and has no image encoder; name the CLIP model it was made with"
        )
    if (folder / "checkpoints").is_dir() and (folder / "log.jsonl").is_file():
        raise ModelError(f"{spec} is a training run that is not finished; go on with it, then name it as a model")
    if (folder / "config.json").is_file():
        return _from_transformers(spec, str(folder), device)
    raise ModelError(f"{spec} holds no model: looked for {CONFIG}, model/{CONFIG} and config.json")


def _from_pretrained(spec: str, device: str) -> DualEncoder:
    """`NAME/PRETRAINED` of open_clip, from its cache or downloaded."""
    name, _, tag = spec.partition("/")
    repair()
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    if name not in open_clip.list_models():
        hint = _did_you_mean(spec) or f"; a transformers model of the hub is hf:{spec}"
        raise ModelError(f"no model {spec!r}: open_clip knows no {name!r} and there is no such folder{hint}")
    if tag not in tags:
        raise ModelError(f"open_clip has no weights {tag!r} for {name}; expected {_listed(tags)}")
    _check_open_clip(spec, open_clip.get_model_config(name) or {})
    published = open_clip.get_pretrained_cfg(name, tag)
    try:
        with quiet_logs(), offline_where_unreachable():
            model = open_clip.create_model(
                name,
                pretrained=tag,
                require_pretrained=True,
                force_quick_gelu=bool(published.get("quick_gelu", False)),
            )
    except Exception as error:
        raise ModelError(
            f"the weights of {spec} {why_not(error)}; connect once to fill the cache, or pass a file as {name}@FILE"
        ) from error
    return _dual(spec, model, _settings_of(model), device)


def _from_checkpoint(spec: str, device: str) -> DualEncoder:
    """`NAME@FILE`: an open_clip architecture with a state dict (or a checkpoint that has one) on disk."""
    name, _, file = spec.partition("@")
    path = Path(file).expanduser()
    repair()
    import open_clip

    if name not in open_clip.list_models():
        raise ModelError(f"open_clip knows no architecture {name!r}{_did_you_mean(name)}")
    if not path.is_file():
        raise ModelError(f"no such checkpoint: {path}; expected a file in NAME@FILE")
    if path.suffix not in _SUFFIXES:
        raise ModelError(f"{path} is not a checkpoint that can be read; expected one of {', '.join(_SUFFIXES)}")
    _check_open_clip(spec, open_clip.get_model_config(name) or {})
    try:
        with quiet_logs():
            model = open_clip.create_model(name, pretrained=str(path), require_pretrained=True, weights_only=True)
    except Exception as error:
        raise ModelError(f"{path} is not a checkpoint of {name}: {first_line(error)}") from error
    return _dual(spec, model, _settings_of(model), device)


def _dual(spec: str, model: Any, preprocess: Mapping[str, Any], device: str) -> DualEncoder:
    """Both towers of an open_clip model whose weights are in place."""
    model = model.float().eval().requires_grad_(False).to(device)
    return DualEncoder(
        name=spec,
        text=TextTower.from_open_clip(model),
        image=ImageTower.from_open_clip(model, preprocess),
        logit_scale=float(model.logit_scale.exp()),
        normalisation="openai",
    )


def _settings_of(model: Any) -> dict[str, Any]:
    """The preprocessing that open_clip's factory attached to the model."""
    found: dict[str, Any] = dict(model.visual.preprocess_cfg)
    return found


def _check_open_clip(spec: str, config: Mapping[str, Any]) -> None:
    """Refuse a text encoder that reads anything but CLIP's tokens, at whose end token CLIP pools."""
    text = config.get("text_cfg", {})
    odd = [key for key in ("hf_model_name", "hf_tokenizer_name", "tokenizer_kwargs") if text.get(key)]
    if "multimodal_cfg" in config:
        odd.append("multimodal_cfg")
    if text.get("vocab_size", VOCABULARY) != VOCABULARY:
        odd.append(f"vocab_size {text['vocab_size']}")
    if text.get("context_length", CONTEXT) != CONTEXT:
        odd.append(f"context_length {text['context_length']}")
    if text.get("pool_type", "argmax") != "argmax":
        odd.append(f"pool_type {text['pool_type']}")
    if odd:
        raise ModelError(
            f"{spec} does not read prompts as CLIP does ({', '.join(odd)}); expected a model over CLIP's "
            f"{VOCABULARY} tokens and {CONTEXT} positions"
        )


def _from_transformers(spec: str, where: str, device: str) -> DualEncoder:
    """A transformers CLIPModel from a folder or, by its id, from the hub or its cache."""
    local = Path(where).expanduser().is_dir()
    where = str(Path(where).expanduser()) if local else where
    if not local and (not where or where.startswith((".", "/", "~"))):
        raise ModelError(f"{spec}: there is no such folder; expected hf:ID or hf:FOLDER")
    if local and not (Path(where) / "config.json").is_file():
        return _from_folder(spec, Path(where), device)
    try:
        with quiet_logs(), nullcontext() if local else offline_where_unreachable():
            return _load_transformers(spec, where, device)
    except ClipCondError:
        raise
    except Exception as error:
        if local:
            raise ModelError(f"{spec} cannot be loaded by transformers: {first_line(error)}") from error
        raise ModelError(
            f"the files of {spec} {why_not(error)}; check the name, connect once, or pass a folder as hf:FOLDER"
        ) from error


def _load_transformers(spec: str, where: str, device: str) -> DualEncoder:
    repair()
    from transformers import AutoConfig, CLIPImageProcessor, CLIPModel

    config: Any = AutoConfig.from_pretrained(where)
    kinds = " ".join(getattr(config, "architectures", None) or ())
    if config.model_type in ("clip_text_model", "clip_vision_model") or "CLIPText" in kinds or "CLIPVision" in kinds:
        lacks = "text" if "vision" in (config.model_type + kinds).lower() else "image"
        raise ModelError(f"{spec} holds {kinds or config.model_type} and has no {lacks} encoder; expected a CLIPModel")
    if config.model_type != "clip":
        raise ModelError(f"{spec} is a {config.model_type} model; expected a CLIPModel (model_type clip)")
    vocabulary, context = config.text_config.vocab_size, config.text_config.max_position_embeddings
    if (vocabulary, context) != (VOCABULARY, CONTEXT):
        raise ModelError(
            f"{spec} has a vocabulary of {vocabulary} and {context} positions; "
            f"expected CLIP's {VOCABULARY} and {CONTEXT}"
        )
    folder = Path(where)
    if folder.is_dir() and not any((folder / name).is_file() for name in _PROCESSORS):
        raise ModelError(f"{spec} has no {_PROCESSORS[0]}; copy it from the model that it was made from")
    processor, _ = CLIPImageProcessor.get_image_processor_dict(where)
    with without_bars(folder.is_dir() or not sys.stderr.isatty()):
        model, report = CLIPModel.from_pretrained(where, output_loading_info=True)
    missing = sorted({*report["missing_keys"], *(str(key) for key in report.get("mismatched_keys", ()))})
    if missing:
        lacks = "no image encoder" if any(key.startswith("vision_model.") for key in missing) else "not all its weights"
        raise ModelError(f"{spec} has {lacks}: {missing[0]} is missing ({len(missing)} in all)")
    model = model.float().eval().requires_grad_(False).to(device)
    return DualEncoder(
        name=spec,
        text=TextTower.from_transformers(model),
        image=ImageTower.from_transformers(model, processor),
        logit_scale=float(model.logit_scale.exp()),
        normalisation="transformers",
    )


def _did_you_mean(spec: str) -> str:
    """`; did you mean …?` with the nearest name, or nothing."""
    if get_close_matches(spec, ["mini"]):
        return "; did you mean mini?"
    repair()
    import open_clip

    name, slash, tag = spec.partition("/")
    near = get_close_matches(name, open_clip.list_models(), n=1, cutoff=0.6)
    if not near:
        return ""
    return f"; did you mean {near[0]}{slash}{tag}?" if slash else f"; did you mean {near[0]}/PRETRAINED?"


def _listed(names: list[str], most: int = 6) -> str:
    if not names:
        return "a checkpoint file as NAME@FILE: none are published for it"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
