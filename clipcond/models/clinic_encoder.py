"""An encoder loaded from disk as the clinic sees it, with the tokenizer that lies beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipcond.models.clinic import ClinicEncoder, rows_of
from clipcond.models.text_encoder import TextEncoder
from clipcond.prompt.tokenizer import EOS


def clinic_encoder(encoder: TextEncoder, *, tokenizer: Path | None, pad_id: int) -> ClinicEncoder:
    """Return an encoder for `clipcond.models.clinic.differences`.

    tokenizer: the folder of transformers' tokenizer; None for CLIP's own, padded with `pad_id`.
    """
    length = min(77, encoder.tower.context)
    own = _rows(tokenizer) if tokenizer is not None else (lambda texts: rows_of(texts, pad_id=pad_id, length=length))
    return ClinicEncoder(state=encoder.state(), config=encoder.config, rows=own, forward=_forward(encoder))


def _rows(folder: Path) -> Callable[[Sequence[str]], Tensor]:
    from transformers import CLIPTokenizer

    tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    length = min(int(tokenizer.model_max_length), 1024)

    def rows(texts: Sequence[str]) -> Tensor:
        made = tokenizer(list(texts), padding="max_length", max_length=length, truncation=True)
        return torch.tensor(made.input_ids)

    return rows


def _forward(encoder: TextEncoder) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    module: Any = encoder.module
    if not hasattr(module, "visual") and not hasattr(module, "transformer"):
        inner = getattr(module, "text_model", module)

        def own(ids: Tensor) -> tuple[Tensor, Tensor]:
            out = inner(ids)
            return out.last_hidden_state, out.pooler_output

        return own

    def pooled_at_end(ids: Tensor) -> tuple[Tensor, Tensor]:
        states = encoder.tower.encode(torch.where((ids == EOS).any(dim=1, keepdim=True), ids, EOS)).hidden
        return states, states[torch.arange(len(ids)), ids.argmax(dim=1)]

    return pooled_at_end
