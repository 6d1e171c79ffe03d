"""Predictions of a denoiser for the same latents under many texts, in batches that fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from clipcond.diffusion.explain.counterfactuals import TextRow
from clipcond.diffusion.explain.denoiser_calls import DenoiserCall, denoiser_of
from clipcond.errors import ModelError

MOST_ROWS = 32  # of one batch: beyond, a denoiser is no quicker
_PER_POSITION = 1 << 16  # bytes that a denoiser's largest layers take for one latent position, in float32, roughly
_SHARE = 0.5  # of the free memory


@torch.no_grad()
def predictions(
    pipe: Any,
    call: DenoiserCall,
    texts: Sequence[TextRow],
    *,
    most_rows: int = MOST_ROWS,
    on_rows: Callable[[int], object] = lambda _: None,
) -> Tensor:
    """The denoiser's prediction for one call's latents under each text.

    texts: R of one length.   most_rows: of a batch; fewer where the memory is small.   on_rows: called with the rows done.
    Returns (R, C, h, w) float32 on the denoiser's device. Raises ModelError where the texts are not of the call's length.
    """
    length = len(texts[0]["prompt_embeds"])
    if length != call.length:
        raise ModelError(f"the denoiser was given {call.length} text positions, the counterfactual texts have {length}")
    done: list[Tensor] = []
    size, at = min(most_rows, _rows_that_fit(call)), 0
    while at < len(texts):
        try:
            done.append(_batch(pipe, call, texts[at : at + size]))
        except torch.cuda.OutOfMemoryError:
            if size == 1:
                raise
            torch.cuda.empty_cache()
            size //= 2
            continue
        on_rows(len(done[-1]))
        at += size
    return torch.cat(done)


def _batch(pipe: Any, call: DenoiserCall, texts: Sequence[TextRow]) -> Tensor:
    states = torch.stack([each["prompt_embeds"] for each in texts])
    pooled = None
    if "pooled_prompt_embeds" in texts[0]:
        pooled = torch.stack([each["pooled_prompt_embeds"] for each in texts])
    args, kwargs = call.with_texts(states, pooled)
    output = denoiser_of(pipe)(*args, **kwargs)
    found: Tensor = output[0] if isinstance(output, tuple) else output.sample
    return _unpacked(pipe, found, call.size).float()


def _unpacked(pipe: Any, found: Tensor, size: tuple[int, int]) -> Tensor:
    """(R, C, h, w) from a prediction: Flux's are patches in a row."""
    if found.ndim == 4:
        return found
    unpacked: Tensor = pipe._unpack_latents(found, *size, pipe.vae_scale_factor)
    return unpacked


def _rows_that_fit(call: DenoiserCall) -> int:
    """A guess at the rows of a batch that the memory holds; on a GPU a batch that it does not is halved."""
    named = call.kwargs.get("hidden_states", call.kwargs.get("sample"))
    latents = call.args[0] if named is None else named
    positions = latents.shape[1] if latents.ndim == 3 else latents.shape[-2] * latents.shape[-1]
    free = next(_free_memory(latents.device), None)
    return MOST_ROWS if free is None else max(1, int(free * _SHARE) // (positions * _PER_POSITION))


def _free_memory(device: torch.device) -> Iterator[int]:
    """Bytes that are free, where that is known."""
    if device.type == "cuda":
        yield torch.cuda.mem_get_info(device)[0]
    elif device.type == "cpu":
        from clipcond.runtime.memory import machine_memory

        if (memory := machine_memory()) is not None:
            yield memory // 4
