"""CLIP's tokenizer in the files that every transformers release reads, written from open_clip's vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

from clipcond.files import write_file
from clipcond.prompt.tokenizer import vocabulary

_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: Path, *, pad_token: str = _EOS, context: int = 77) -> None:
    """Write vocab.json, merges.txt and the two configs into a folder that is there.

    pad_token: `<|endoftext|>` for OpenAI's towers, `!` for OpenCLIP's H and bigG.   context: the longest row.
    Raises ResourceMissing where open_clip's vocabulary file is not there, OutputExists and OSError.
    """
    pieces, merges = vocabulary()
    special = {"bos_token": _BOS, "eos_token": _EOS, "unk_token": _EOS, "pad_token": pad_token}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": context, "do_lower_case": True,
              "add_prefix_space": False, "errors": "replace", **special}  # fmt: skip
    write_file(folder / "vocab.json", json.dumps({piece: number for number, piece in enumerate(pieces)}))
    write_file(folder / "merges.txt", "\n".join(["#version: 0.2", *merges]) + "\n")
    write_file(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
    write_file(folder / "special_tokens_map.json", json.dumps(special, indent=2) + "\n")
