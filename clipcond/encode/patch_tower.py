"""A vector for each place of a picture, in the space of texts, from an encoder that was made to give one for all.

An encoder's vector of a picture is a mix of all its places, and so is, by the end, the state of each patch. Left of the
mixing each place still has its own:

`values`   the last attention is skipped, and its values go on alone (MaskCLIP: Zhou et al. 2022, arXiv 2112.01071).
`surgery`  values attend to the values like them, and the outputs of the last half of the blocks are added up without the
           states that they are usually added to (CLIP Surgery: Li et al. 2023, arXiv 2304.05653; without the residual
           stream: ClearCLIP, Lan et al. 2024, arXiv 2407.12442).
`states`   the last hidden states as they are, which is what one would try first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from clipcond.encode.image import ImageTower
from clipcond.encode.patch_blocks import BlockEncoder, PatchEncoder, PoolEncoder, patch_encoder
from clipcond.encode.shapes import check_finite
from clipcond.errors import ModelError
from clipcond.images.patches import PatchPreprocess

Way = Literal["surgery", "values", "states"]


class PatchTower:
    """An image encoder that gives a vector for each place of a picture."""

    def __init__(self, name: str, tower: ImageTower) -> None:
        """name: of the model, for messages. Raises ModelError for an encoder whose places cannot be told apart."""
        encoder = None if isinstance(tower.preprocess, PatchPreprocess) else patch_encoder(tower.model)
        if encoder is None:
            raise ModelError(f"{name} has no patches that can be read one by one; look with --method windows instead")
        self._name, self._tower, self._encoder = name, tower, encoder

    @torch.inference_mode()
    def embed_pixels(self, pixels: np.ndarray, way: Way = "surgery") -> Tensor:
        """Encode prepared pictures, (N, height, width, 3) uint8, to (N, rows, columns, P) float32 unit vectors on the CPU.

        way: of an encoder with a pooling module of its own, `values` is the only one. Raises ShapeError as the tower does,
        ModelError for values that are not finite and for places that make no grid.
        """
        with _seen_by(_watched(self._encoder)) as seen:
            self._tower.embed_pixels(pixels)
        vectors = _vectors(self._encoder, seen, len(pixels), pixels.shape[1:3], way).float().cpu()
        check_finite("patch", vectors)
        rows, columns = self._grid(vectors.shape[1], *pixels.shape[1:3])
        return torch.nn.functional.normalize(vectors, dim=-1).reshape(len(pixels), rows, columns, -1)

    def _grid(self, count: int, height: int, width: int) -> tuple[int, int]:
        rows = max(1, round((count * height / width) ** 0.5))
        if rows * (count // rows) != count:
            raise ModelError(f"{self._name} has {count} places for a picture of {width}×{height}, which make no grid")
        return rows, count // rows


def _watched(encoder: PatchEncoder) -> Sequence[nn.Module]:
    return [encoder.pool] if isinstance(encoder, PoolEncoder) else [each.module for each in encoder.blocks]


@contextmanager
def _seen_by(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """While open, what each module is called with; of the last one also what comes out."""
    seen: list[Tensor] = []

    def before(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(given[0] if given else named["hidden_states"])

    def after(_: nn.Module, __: Any, out: Any) -> None:
        seen.append(out if isinstance(out, Tensor) else out[0])

    hooks = [each.register_forward_pre_hook(before, with_kwargs=True) for each in modules]
    hooks.append(modules[-1].register_forward_hook(after))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _vectors(encoder: PatchEncoder, seen: list[Tensor], count: int, size: tuple[int, int], way: Way) -> Tensor:
    """(count, S, P) of the places. seen: from `_seen_by`; rows behind `count` are filling.   size: of the pixels."""
    if isinstance(encoder, PoolEncoder):
        return encoder.places(seen[0][:count])[:, encoder.prefix :]
    states = [each if encoder.blocks[0].batch_first else each.transpose(0, 1) for each in seen]
    found = encoder.project(_mixed(encoder, [each[:count] for each in states], way))
    places = (size[0] // encoder.patch[0]) * (size[1] // encoder.patch[1])
    return found[:, -places:]  # class tokens come first


def _mixed(encoder: BlockEncoder, states: list[Tensor], way: Way) -> Tensor:
    blocks, before = encoder.blocks, states[:-1]
    if way == "states":
        return states[-1]
    if way == "values":
        return blocks[-1].kept(before[-1])
    from_half = len(blocks) // 2
    return torch.stack([b.alike(s) for b, s in zip(blocks[from_half:], before[from_half:], strict=True)]).sum(dim=0)
