"""The T5 tower of SD3 and Flux: rows of ids in, the states of the last layer out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.encode.fingerprint import Fingerprint, running_device
from clipcond.encode.rows import MAX_TOKENS, TokenSequence, attention_mask, check_rows, ids_of, override_embeddings
from clipcond.encode.shapes import check_finite
from clipcond.encode.tower import TextStates, joined
from clipcond.errors import ConfigError, ModelError

_NONE: Mapping[str, Tensor] = MappingProxyType({})


class T5Tower:
    """One T5 encoder of transformers; the model is used, not copied."""

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = model
        self._stack: Any = getattr(model, "encoder", model)
        if not hasattr(self._stack, "block") or not hasattr(self._stack, "embed_tokens"):
            raise ModelError(f"{type(model).__name__} is no T5 encoder of transformers: it has no T5 encoder stack")
        self._fingerprint = Fingerprint(model)

    @classmethod
    def from_transformers(cls, model: nn.Module) -> T5Tower:
        """Wrap a transformers T5EncoderModel. Raises ModelError when the model has no T5 encoder stack."""
        return cls(model)

    @property
    def width(self) -> int:
        """D, the width of token states."""
        return int(self._stack.final_layer_norm.weight.shape[0])

    @property
    def device(self) -> torch.device:
        """The device on which the tower computes: offloaded weights are elsewhere between two passes."""
        return running_device(self._model, self._stack.final_layer_norm.weight)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the states: that of the norms, since quantised layers and T5's float32 ones differ from it."""
        return self._stack.final_layer_norm.weight.dtype  # type: ignore[no-any-return]

    def fingerprint(self) -> str:
        """The same text for the same weights and adapters: see `Fingerprint`."""
        return self._fingerprint()

    @torch.no_grad()
    def encode_rows(
        self,
        rows: Sequence[TokenSequence],
        *,
        vectors: Mapping[str, Tensor] = _NONE,
        clip_skip: int = 0,
        final_norm: bool = True,
        max_tokens: int = MAX_TOKENS,
    ) -> TextStates:
        """Encode N rows of one length L, as the pipelines do: without a mask, unless a row masks positions.

        rows: ids of T5's own vocabulary.   vectors: (D,) each, by the digests that rows name.   max_tokens: the most
        positions of one pass, padding included.
        Returns hidden (N, L, D) with the final norm; nothing is pooled. Raises ShapeError and ConfigError as
        `check_rows` does, ConfigError for a clip_skip or for final_norm=False: the families take T5's last layer only;
        ModelError for states that are not finite, as T5 in float16 gives them for some texts.
        """
        if clip_skip or not final_norm:
            raise ConfigError(
                f"clip_skip is {clip_skip} and final_norm {final_norm}, expected 0 and True: of T5 only its output is taken"
            )
        length = check_rows(rows, vectors, width=self.width, context=None)
        size = max(1, max_tokens // length)
        states = joined([self._forward(rows[at : at + size], vectors) for at in range(0, len(rows), size)])
        check_finite("T5", states.hidden)
        return states

    def _forward(self, rows: Sequence[TokenSequence], vectors: Mapping[str, Tensor]) -> TextStates:
        mask = attention_mask(rows, self.device)
        ids = ids_of(rows, self.device)
        with override_embeddings(self._stack.embed_tokens, rows, vectors):
            out = self._model(ids) if mask is None else self._model(ids, attention_mask=mask.long())
        return TextStates(hidden=out[0], pooled=None, projected=None)
