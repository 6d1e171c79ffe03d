"""The way in which an open_clip text encoder reads, from its config alone: tokens, length, pooling, other libraries.

Imports no model library: `clipcond doctor` and the catalogue need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clipcond.errors import ModelError
from clipcond.prompt.tokenizer import CONTEXT, VOCABULARY

POOLINGS = {"argmax": "end of text", "eos": "end of text", "last": "last place", "first": "first place"}
HF_POOLINGS = {
    "mean_pooler": "mean",
    "max_pooler": "maximum",
    "cls_pooler": "first place",
    "cls_last_hidden_state_pooler": "first place",
}
CLEANINGS = ("whitespace", "lower", "canonicalize")
_TOKENIZER_SETTINGS = ("clean", "strip_sep_token", "language")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenClipTextConfig:
    """The text encoder of an open_clip config.

    tokenizer: the name of a tokenizer of the hub; None for CLIP's own byte pairs.   model: the name of the text model of
    transformers that it is built around; None for open_clip's own transformer.
    """

    length: int
    vocabulary: int
    pooling: str
    causal: bool
    cls: bool  # a learned token behind the text stands for it, as in CoCa
    tokenizer: str | None = None
    clean: str = "whitespace"
    strip_separator: bool = False
    language: str | None = None
    mode: str = ""
    model: str | None = None

    @property
    def is_clip(self) -> bool:
        """True for CLIP's own kind: its tokens, causal, pooled at the end of text, so that padding is never seen."""
        return not self.beside_clip()

    def beside_clip(self) -> list[str]:
        """The settings in which it differs from CLIP's kind, its length aside."""
        odd = [name for name, given in (("hf_model_name", self.model), ("hf_tokenizer_name", self.tokenizer)) if given]
        if self.cls:
            odd.append("embed_cls")
        if self.vocabulary != VOCABULARY:
            odd.append(f"vocab_size {self.vocabulary}")
        if self.pooling != "argmax":
            odd.append(f"pool_type {self.pooling}")
        if not self.causal:
            odd.append("no_causal_mask")
        return odd

    @property
    def pooled_at(self) -> str:
        """The position or mean that stands for a text, in a word or two."""
        if self.cls:
            return "class token"
        return HF_POOLINGS[self.pooling] if self.model else POOLINGS[self.pooling]


def read_text_config(spec: str, config: Mapping[str, Any]) -> OpenClipTextConfig:
    """Read the text half of an open_clip `model_cfg`. Raises ModelError for what no open_clip model has."""
    text = config.get("text_cfg", {})
    if not isinstance(text, Mapping) or not isinstance(config.get("vision_cfg", {}), Mapping):
        raise ModelError(f"{spec} describes no model: text_cfg and vision_cfg are to be objects of settings")
    settings = text.get("tokenizer_kwargs") or {}
    if not isinstance(settings, Mapping) or not set(settings) <= set(_TOKENIZER_SETTINGS):
        raise ModelError(
            f"{spec} has tokenizer_kwargs {settings!r}; expected an object with {', '.join(_TOKENIZER_SETTINGS)} at most"
        )
    model, tokenizer = _name(spec, text, "hf_model_name"), _name(spec, text, "hf_tokenizer_name")
    if settings and tokenizer is None:
        raise ModelError(f"{spec} has tokenizer_kwargs, but no hf_tokenizer_name that they could be for")
    if model is not None and tokenizer is None:
        raise ModelError(f"{spec} reads the tokens of {model}, but no hf_tokenizer_name says which")
    found = OpenClipTextConfig(
        length=_count(spec, text, "context_length", CONTEXT),
        vocabulary=_count(spec, text, "vocab_size", VOCABULARY),
        pooling=str(text.get("hf_pooler_type") or "mean_pooler") if model else str(text.get("pool_type", "argmax")),
        causal=not text.get("no_causal_mask", False),
        cls=bool(text.get("embed_cls", False)),
        tokenizer=tokenizer,
        clean=str(settings.get("clean", "whitespace")),
        strip_separator=bool(settings.get("strip_sep_token", False)),
        language=None if settings.get("language") is None else str(settings["language"]),
        mode=str(text.get("tokenizer_mode") or ""),
        model=model,
    )
    _check_words(spec, found)
    return found


def check_reads_clip_tokens(spec: str, config: Mapping[str, Any]) -> None:
    """Refuse an open_clip text encoder that is not CLIP's own, for those who train, export and condition."""
    text = read_text_config(spec, config)
    odd = text.beside_clip()
    if text.length < CONTEXT:
        odd.append(f"context_length {text.length}")
    if "multimodal_cfg" in config:
        odd.append("multimodal_cfg")
    if odd:
        raise ModelError(
            f"{spec} does not read prompts as CLIP does ({', '.join(odd)}); expected a model over CLIP's "
            f"{VOCABULARY} tokens and {CONTEXT} positions or more"
        )


def _check_words(spec: str, text: OpenClipTextConfig) -> None:
    """Refuse words that the libraries would not know, and one that asks for something else."""
    known = HF_POOLINGS if text.model else POOLINGS
    if text.pooling not in known:
        raise ModelError(f"{spec} pools its texts by {text.pooling!r}; expected one of {', '.join(known)}")
    if text.clean not in CLEANINGS:
        raise ModelError(f"{spec} cleans its texts by {text.clean!r}; expected one of {', '.join(CLEANINGS)}")
    if text.mode not in ("", "clips"):
        raise ModelError(f"{spec} has the tokenizer_mode {text.mode!r}; expected clips or none")


def _name(spec: str, text: Mapping[str, Any], key: str) -> str | None:
    value = text.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise ModelError(f"{spec} has {key} {value!r}; expected a name")
    return value


def _count(spec: str, text: Mapping[str, Any], key: str, default: int) -> int:
    value = text.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(f"{spec} has {key} {value!r}; expected a number from 1 on")
    return value
