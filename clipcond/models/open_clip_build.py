"""An open_clip model from its config, weights from nowhere, and its text encoder as an embedder of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from clipcond.encode.image import ImageTower
from clipcond.encode.text import TextTower
from clipcond.encode.text_embedder import TextEmbedder, clip_embedder
from clipcond.encode.text_layout import TextLayout
from clipcond.encode.tokenizers import ClipTokenizer, LibraryTokenizer, library_layout
from clipcond.errors import ModelError
from clipcond.models.dual import DualEncoder, logit_head, on_device_of, ready
from clipcond.models.open_clip_text import OpenClipTextConfig, read_text_config
from clipcond.models.tokenizer_files import read_tokenizer, text_model_folder
from clipcond.prompt.tokenizer import BOS, EOS
from clipcond.runtime.torchvision_repair import repair


@contextmanager
def buildable(spec: str, config: Mapping[str, Any], places: Sequence[str | Path] = ()) -> Iterator[dict[str, Any]]:
    """While open, the `model_cfg` in the form in which open_clip builds it without fetching weights for any part.

    places: folders that may hold the config of a text model of transformers; the one that the config names comes last.
    Raises ModelError.
    """
    text = read_text_config(spec, config)
    changed = dict(config)
    if "timm_model_name" in config.get("vision_cfg", {}):
        changed["vision_cfg"] = {**config["vision_cfg"], "timm_model_pretrained": False}
    if text.model is None:
        yield changed
        return
    with text_model_folder(spec, [*places, text.model]) as folder:
        changed["text_cfg"] = {**config["text_cfg"], "hf_model_name": folder, "hf_model_pretrained": False}
        yield changed


def builder(config: Mapping[str, Any], *, quick_gelu: bool | None = None) -> Callable[[], Any]:
    """Return a function that builds the model of a config from `buildable`, of the class that open_clip's factory takes.

    quick_gelu: the activation, in place of the config's.
    """
    repair()
    import open_clip

    custom = config.get("custom_text") or "hf_model_name" in config.get("text_cfg", {})
    kind: Any = open_clip.CLIP
    if custom:
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    arguments = {name: value for name, value in config.items() if name != "custom_text"}
    if quick_gelu is not None:
        arguments["quick_gelu"] = quick_gelu
    return lambda: kind(**arguments)


def dual_from_open_clip(
    spec: str,
    model: Any,
    config: Mapping[str, Any],
    preprocess: Mapping[str, Any],
    device: str,
    *,
    tokenizer: ClipTokenizer | LibraryTokenizer,
    notes: tuple[str, ...] = (),
    pipeline_layers: int | None = None,
) -> DualEncoder:
    """Return both towers of an open_clip model, in float32 and ready for inference.

    config: its `model_cfg`.   tokenizer: from `open_clip_tokenizer`.   pipeline_layers: of the text tower, that pipelines
    read.   Raises ModelError.
    """
    text = read_text_config(spec, config)
    model = ready(spec, model, device)
    return DualEncoder(
        name=spec,
        texts=_embedder(model, text, tokenizer),
        image=ImageTower.from_open_clip(model, preprocess),
        head=logit_head(spec, model),
        notes=notes,
        pipeline_layers=pipeline_layers,
    )


def open_clip_tokenizer(
    spec: str, config: Mapping[str, Any], places: Sequence[str | Path]
) -> ClipTokenizer | LibraryTokenizer:
    """Return the tokenizer of a `model_cfg`, to be had before the work of reading weights.

    places: folders that may hold it; the one that the config names comes last.   Raises ModelError.
    """
    text = read_text_config(spec, config)
    if text.tokenizer is None:
        return ClipTokenizer("openai")
    from open_clip.tokenizer import get_clean_fn

    found = read_tokenizer(spec, [*places, text.tokenizer], clean=get_clean_fn(text.clean))
    theirs = found.tokenizer
    if text.language is not None:
        if not callable(getattr(theirs, "set_src_lang_special_tokens", None)):
            raise ModelError(
                f"{spec} states the language {text.language!r}, which its tokenizer ({found.name}) has not"
            )
        theirs.set_src_lang_special_tokens(text.language)
    if text.strip_separator and theirs.sep_token_id is not None:
        found.replaced[int(theirs.sep_token_id)] = 0
    return found


def _embedder(model: Any, text: OpenClipTextConfig, tokenizer: ClipTokenizer | LibraryTokenizer) -> TextEmbedder:
    if isinstance(tokenizer, ClipTokenizer) and text.is_clip:
        return clip_embedder(TextTower.from_open_clip(model), tokenizer)
    if isinstance(tokenizer, ClipTokenizer):  # padded with 0 as by open_clip's own tokenizer
        layout = TextLayout(length=text.length, before=(BOS,), after=(EOS,), pad=0)
    elif text.mode == "clips":
        layout = _clips_layout(text, tokenizer)
    else:
        pad = getattr(getattr(model.text, "config", None), "pad_token_id", None) if text.model else None
        masked = pad is not None and pad == tokenizer.tokenizer.pad_token_id  # a text model of transformers masks it
        layout = library_layout(tokenizer, text.length, masked=masked)

    def forward(ids: Tensor, mask: Tensor) -> Tensor:
        features: Tensor = model.encode_text(*on_device_of(model, ids))
        return features

    return TextEmbedder(tokenizer=tokenizer, layout=layout, forward=forward, pooling=text.pooled_at)


def _clips_layout(text: OpenClipTextConfig, tokenizer: LibraryTokenizer) -> TextLayout:
    """A class token in the last place, behind the padding."""
    theirs = tokenizer.tokenizer
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id")
    ids = [getattr(theirs, name) for name in names]
    if None in ids:
        raise ModelError(f"the tokenizer ({tokenizer.name}) has no {names[ids.index(None)]}, which this model reads")
    start, end, pad, last = map(int, ids)
    return TextLayout(length=text.length, before=(start,), after=(end,), pad=pad, last=(last,))
