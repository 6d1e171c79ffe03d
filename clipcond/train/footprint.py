"""The memory that a model's training takes, from its architecture alone: weights, and what a pair leaves for its gradient."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipcond.models.architecture import without_memory
from clipcond.train.blocks import blocks_of
from clipcond.train.config import TrainConfig
from clipcond.train.lora import adapter_weights
from clipcond.train.model import check_model, freeze, has_batch_norm, image_features, text_trunk, use_plain_attention

_ROWS = (2, 4)  # two batches give what a pair takes, and what any batch takes
_LENGTHS = (16, 46, 76)  # positions of a caption; three give attention's square too


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Sizes of a model under some settings, in numbers of weights and bytes.

    image, text: weights of the towers. trained: of all that trains. table: of the token table where it trains.
    batch_norm: the image tower normalises over the batch. width: of token states. pooled: P.
    image_pair: bytes that a picture leaves for the backward pass, any_image: those of any batch.
    text_row: of a caption, by the coefficients of 1, L and L²; any_text: of any batch.
    """

    parameters: int
    image: int
    text: int
    trained: int
    table: int
    batch_norm: bool
    width: int
    pooled: int
    image_pair: float
    any_image: float
    text_row: tuple[float, float, float]
    any_text: float

    def text_bytes(self, lengths: np.ndarray) -> float:
        """Return the bytes that captions of (N,) positions leave for the backward pass."""
        one, linear, square = self.text_row
        length = lengths.astype(float)
        return float(one * len(length) + linear * length.sum() + square * (length**2).sum()) + self.any_text


def footprint(config: TrainConfig, *, on_cpu: bool) -> Footprint:
    """Measure a model without its weights, by a forward pass over tensors that take no memory.

    on_cpu: with the attention that training uses there. Raises ModelError for a model that cannot be trained.
    """
    with without_memory(config.model) as model:
        check_model(model)
        model.requires_grad_(True)
        freeze(model, config.frozen, text_blocks=config.train_blocks, but_unseen=config.unseen_rate is not None)
        if on_cpu:
            use_plain_attention(model)
        if config.grad_checkpointing:
            _keep_inputs(model)
        half = config.precision in ("bf16", "fp16")
        autocast = torch.autocast("cpu", torch.bfloat16) if half else nullcontext()
        with autocast:
            found = _measured(model)
        if config.lora_rank is None:
            return found
        return replace(
            found, trained=adapter_weights(config, model), table=0
        )  # it keeps about what the tower itself would


class _Kept(torch.autograd.Function):
    """The input of a block, which is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.view_as(x)


def _keep_inputs(model: Any) -> None:
    """Let the blocks of towers that train keep their input alone, but the last, which stands for the one computed again."""
    for tower in (model, model.visual):
        blocks = list(blocks_of(tower))
        if any(parameter.requires_grad for block in blocks for parameter in block.parameters()):
            for block in blocks[:-1]:
                block.forward = partial(_input_alone, block.forward)


def _input_alone(forward: Callable[..., Tensor], x: Tensor, **how: Any) -> Tensor:
    kept: Tensor = _Kept.apply(x)  # type: ignore[no-untyped-call]
    with torch.autograd.graph.saved_tensors_hooks(lambda value: value, lambda value: value):
        return forward(kept, **how)


def _measured(model: Any) -> Footprint:
    image = [_saved(model, partial(_image, model, rows)) for rows in _ROWS]
    pair = (image[1] - image[0]) / (_ROWS[1] - _ROWS[0])
    text = [[_saved(model, partial(_text, model, rows, length)) for rows in _ROWS] for length in _LENGTHS]
    rows = [(more - less) / (_ROWS[1] - _ROWS[0]) for less, more in text]
    square, linear, one = np.polyfit(_LENGTHS, rows, 2).tolist()
    parameters = list(model.parameters())
    table = model.token_embedding.weight
    visual = sum(p.numel() for p in model.visual.parameters())
    total = sum(p.numel() for p in parameters)
    return Footprint(
        parameters=total, image=visual, text=total - visual, trained=sum(p.numel() for p in parameters if p.requires_grad),
        table=table.numel() if table.requires_grad else 0, batch_norm=has_batch_norm(model.visual),
        width=table.shape[1], pooled=_pooled(model),
        image_pair=pair, any_image=image[0] - _ROWS[0] * pair, text_row=(one, linear, square),
        any_text=text[0][0] - _ROWS[0] * rows[0],
    )  # fmt: skip


def _pooled(model: Any) -> int:
    projection = model.text_projection
    return int(projection.out_features if isinstance(projection, torch.nn.Linear) else projection.shape[1])


def _image(model: Any, rows: int) -> Tensor:
    size = model.visual.image_size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return image_features(model, torch.empty(rows, 3, height, width))


def _text(model: Any, rows: int, length: int) -> Tensor:
    """Encode captions of one length, as `clipcond.train.model.text_state` does a group of them."""
    trains = any(parameter.requires_grad for parameter in text_trunk(model))
    with torch.set_grad_enabled(trains):
        x = model.token_embedding(torch.zeros(rows, length, dtype=torch.int64)) + model.positional_embedding[:length]
        x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
        state: Tensor = model.ln_final(x[:, -1].clone())  # a copy, as picking the ends of texts makes one
        return state


def _saved(model: Any, forward: Callable[[], Tensor]) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, the model's own weights left out."""
    own = {id(parameter.untyped_storage()) for parameter in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}  # storages, which must live for their ids to differ

    def keep(value: Tensor) -> Tensor:
        if not value.is_sparse:
            storage = value.untyped_storage()
            kept[id(storage)] = storage
        return value

    hooks: AbstractContextManager[Any] = torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value)
    with hooks:
        graph = forward()
    sizes = {number: storage.nbytes() for number, storage in kept.items() if number not in own}
    del graph
    return sum(sizes.values())
