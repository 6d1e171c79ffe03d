"""Check that an open_clip architecture reads CLIP's own tokens. Imports no model library: `clipcond doctor` needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipcond.errors import ModelError
from clipcond.prompt.tokenizer import CONTEXT, VOCABULARY


def check_reads_clip_tokens(spec: str, config: Mapping[str, Any]) -> None:
    """Refuse an open_clip text encoder that reads anything but CLIP's tokens, at whose end token CLIP pools.

    It also keeps out text encoders of transformers, which could ask to run code of a model folder.
    """
    text = config.get("text_cfg", {})
    if not isinstance(text, Mapping) or not isinstance(config.get("vision_cfg", {}), Mapping):
        raise ModelError(f"{spec} describes no model: text_cfg and vision_cfg are to be objects of settings")
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
