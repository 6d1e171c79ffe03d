"""The text tower: token ids in, per-token states of any layer, pooled and projected vectors out, for either library.

Layers are counted as diffusers counts `clip_skip` for Stable Diffusion: 0 is the last layer, 1 the penultimate, up to
the number of layers, which is the embeddings. `pooled` and `projected` always come from the whole stack with its
final norm, at the *first* EOS of a row: never at the largest id, which an added token would win.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from clipcond.encode.fingerprint import Fingerprint, running_device
from clipcond.encode.rows import MAX_TOKENS, TokenSequence, check_rows, first_eos
from clipcond.encode.shapes import check_axes, check_finite
from clipcond.encode.text_backends import Backend, OpenClipText, TransformersText
from clipcond.encode.text_rows import RowPass, states
from clipcond.encode.tower import TextStates as TextStates
from clipcond.encode.tower import joined
from clipcond.errors import ConfigError, ShapeError
from clipcond.prompt.tokenizer import EOS

MAX_BATCH = 64


_NONE: Mapping[str, Tensor] = MappingProxyType({})


class TextTower:
    """One CLIP text encoder behind one interface."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._fingerprint = Fingerprint(backend.model)

    @classmethod
    def from_transformers(cls, model: nn.Module) -> TextTower:
        """Wrap a transformers CLIPTextModel, CLIPTextModelWithProjection or CLIPModel; the model is used, not copied.

        Raises ModelError when the model has no CLIP text stack.
        """
        return cls(TransformersText(model))

    @classmethod
    def from_open_clip(cls, model: nn.Module) -> TextTower:
        """Wrap an open_clip `CLIP`, `CustomTextCLIP` or text tower; the model is used, not copied.

        Raises ModelError when its text tower is not a causal CLIP transformer pooled at EOS.
        """
        return cls(OpenClipText(model))

    @property
    def width(self) -> int:
        """D, the width of token states."""
        return self._backend.width

    @property
    def context(self) -> int:
        """The most positions a row may have."""
        return self._backend.context

    @property
    def layers(self) -> int:
        """Number of transformer layers."""
        return self._backend.layers

    @property
    def vocabulary(self) -> int:
        """Number of rows of the token table."""
        return self._backend.vocabulary

    @property
    def device(self) -> torch.device:
        """The device on which the tower computes: offloaded weights are elsewhere between two passes."""
        return running_device(self._backend.model, self._backend.parameter())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self._backend.parameter().dtype

    def encode(
        self,
        ids: Tensor,
        *,
        clip_skip: int = 0,
        final_norm: bool = True,
        max_batch: int = MAX_BATCH,
        grad: bool = False,
    ) -> TextStates:
        """Encode rows of token ids; each row's result is independent of its neighbours.

        ids: (N, L) int64 on any device, L at most `context`; every row holds an EOS. Rows may be cut behind their
        EOS: the towers are causal.   clip_skip: 0 the last layer, 1 the penultimate, …   final_norm: norm `hidden` as
        the last layer is. max_batch: rows per forward.   grad: keep the graph for training (ignored under
        torch.no_grad). Raises ShapeError for wrong axes, too many positions, or a row without EOS; ConfigError for an
        impossible clip_skip.
        """
        size = check_axes("ids", ids, "N L")
        if not 1 <= size["L"] <= self.context:
            raise ShapeError(f"ids: axis L is {size['L']}, expected 1 to {self.context} in (N, L)")
        self._check_skip(clip_skip)
        if max_batch < 1:
            raise ConfigError(f"max_batch is {max_batch}, expected 1 or more")
        at_end, device = _first_eos(ids), self.device
        skip = clip_skip if clip_skip or not final_norm else -1
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            return joined(
                [
                    states(self._backend, rows.to(device), ends, skip, final_norm)
                    for rows, ends in zip(torch.split(ids, max_batch), torch.split(at_end, max_batch), strict=True)
                ]
            )

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
        """Encode N rows of one length L; each row's result is independent of its neighbours, up to rounding.

        rows: L at most `context`, an EOS in each.   vectors: (D,) each, by the digests that rows name; they stand where
        token embeddings would, before positions are added.   clip_skip, final_norm: as for `encode`.   max_tokens: the
        most positions of one pass.
        Returns states without a graph, pooled at the first EOS of each row. Raises ShapeError and ConfigError as
        `check_rows` does, and as `encode` does for a row without EOS and for an impossible clip_skip; ModelError for states
        that are not finite.
        """
        return _finite(self._pass(rows, vectors, clip_skip, final_norm).run(max_tokens))

    def pool_rows(
        self,
        rows: Sequence[TokenSequence],
        *,
        vectors: Mapping[str, Tensor] = _NONE,
        max_tokens: int = MAX_TOKENS,
        grad: bool = False,
    ) -> TextStates:
        """Only the pooled and projected vectors of N rows of one length, as `encode_rows` gives them.

        Rows are cut behind their EOS and packed without padding.   grad: keep the graph, back to `vectors` too (ignored
        under torch.no_grad). Returns hidden of shape (N, 0, D). Raises what `encode_rows` raises.
        """
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            return _finite(self._pass(rows, vectors, 0, True).pool(max_tokens))

    @torch.no_grad()
    def token_embeddings(self, ids: Sequence[int]) -> Tensor:
        """The rows of the token table of M token ids: (M, D) float32 on the CPU, as `vectors` of rows take them.

        Raises ShapeError for an id beyond the table.
        """
        table: Tensor = self._backend.table.get_parameter("weight")
        if ids and not 0 <= min(ids) <= max(ids) < len(table):
            raise ShapeError(f"ids: {min(ids)} to {max(ids)}, expected 0 to {len(table) - 1}")
        return table[torch.tensor(ids, dtype=torch.long, device=table.device)].float().cpu()

    def _pass(
        self, rows: Sequence[TokenSequence], vectors: Mapping[str, Tensor], clip_skip: int, final_norm: bool
    ) -> RowPass:
        check_rows(rows, vectors, width=self.width, context=self.context)
        self._check_skip(clip_skip)
        return RowPass(
            backend=self._backend,
            device=self.device,
            rows=rows,
            ends=first_eos(rows),
            vectors=vectors,
            skip=clip_skip if clip_skip or not final_norm else -1,
            final_norm=final_norm,
        )

    @torch.inference_mode()
    def untrained(self, ids: Iterable[int]) -> frozenset[int]:
        """Return those of some token ids whose rows of the token table are zero: no training ever reached them."""
        known = sorted({number for number in ids if 0 <= number < self.vocabulary})
        table: Tensor = self._backend.table.get_parameter("weight")
        rows = table[torch.tensor(known, dtype=torch.long, device=table.device)]
        zero = (rows == 0).all(dim=1).tolist()
        return frozenset(number for number, none in zip(known, zero, strict=True) if none)

    def fingerprint(self) -> str:
        """The same text for the same weights and adapters: see `Fingerprint`."""
        return self._fingerprint()

    def _check_skip(self, clip_skip: int) -> None:
        if not 0 <= clip_skip <= self.layers:
            raise ConfigError(
                f"clip_skip is {clip_skip}, expected 0 (last layer) to {self.layers} for this text encoder"
            )


def _finite(states: TextStates) -> TextStates:
    """Raise ModelError where a state is not finite, as damaged weights and overflows make them."""
    for values in (states.hidden, states.pooled, states.projected):
        if values is not None:
            check_finite("CLIP text", values)
    return states


def _first_eos(ids: Tensor) -> Tensor:
    """(N,) positions of the first EOS of each row of (N, L) ids."""
    found = ids == EOS
    without = (~found.any(dim=1)).nonzero().flatten().tolist()
    if without:
        raise ShapeError(f"ids: row {without[0]} holds no EOS ({EOS}), where its text would be pooled")
    return found.int().argmax(dim=1)
