"""Equal lengths without changing a picture: token states are repeated to the least common multiple.

A U-Net takes prompt and negative prompt as one batch, so both need the same number of rows T. Three ways:

- `lcm`: repetition. Softmax attention does not notice when *every* key and value occurs n times: each weight is divided
  by n and counted n times. The price is memory where many different lengths meet: 7, 8 and 9 chunks at 504.
- `mask`: rows of zeros and a mask that hides them; as exact, for a model that is called with an
  `encoder_attention_mask`.
- `pad_empty`: the empty prompt's states after the shorter side, as compel does; they draw attention away from its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm
from typing import Literal, get_args

import torch
from torch import Tensor

from clipcond.encode.shapes import check_axes
from clipcond.errors import ConfigError, ShapeError
from clipcond.runtime.memory import machine_memory

Lengths = Literal["lcm", "mask", "pad_empty"]
LENGTHS = get_args(Lengths)


MOST_REPEATS = 32  # times the longest: beyond, equal lengths by repetition are not what anybody meant
MOST_BYTES = 2**29  # of all states of a call that are repeated


def common_length(lengths: Sequence[int]) -> int:
    """Return the least common multiple of lengths. Raises ShapeError when there are none or one is below 1."""
    if not lengths or min(lengths) < 1:
        raise ShapeError(f"lengths: {list(lengths)}, expected at least one and all of them 1 or more")
    return lcm(*lengths)


def repeated_length(lengths: Sequence[int], bytes_per_token: int = 0) -> int:
    """Return the length that rows of a call reach by repetition.

    bytes_per_token: of all rows together.   Raises ConfigError where it is more than 32 times the longest, or takes more
    than 512 MiB, and what `common_length` raises.
    """
    length = common_length(lengths)
    size = length * bytes_per_token
    if length > MOST_REPEATS * max(lengths) or (length > max(lengths) and size > MOST_BYTES):
        several = ", ".join(str(each) for each in sorted(set(lengths)))
        takes = f" and take {size / 2**20:,.0f} MiB, more than {MOST_BYTES >> 20}" if size > MOST_BYTES else ""
        raise ConfigError(
            f"rows of {several} tokens meet at {length} by repetition{takes}; condition them in calls of their own, "
            "or say lengths='pad_empty'"
        )
    return length


def check_memory(rows: int, length: int, bytes_per_row: int) -> None:
    """Raise ConfigError for rows of a call that would not fit this machine's memory."""
    size, memory = rows * bytes_per_row, machine_memory()
    if memory is not None and size > memory:
        raise ConfigError(
            f"{rows:,} rows of {length} tokens would take {size / 2**30:,.1f} GiB, more than the {memory / 2**30:,.1f} GiB "
            "of this machine; condition them in several calls, or draw more pictures of one conditioning"
        )


def repeat_to(states: Tensor, length: int) -> Tensor:
    """Repeat token states along their own axis.

    states: (B, T, D), any dtype and device.   length: a multiple of T.
    Returns (B, length, D), the same tensor when T is the length already. Raises ShapeError when T does not divide it.
    """
    size = check_axes("states", states, "B T D")["T"]
    if size < 1 or length < 1 or length % size:
        raise ShapeError(f"states: axis T is {size}, which does not divide the wanted length of {length}")
    return states if length == size else states.repeat(1, length // size, 1)


def mask_to(states: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Fill token states up with zeros that a mask hides.

    states: (B, T, D), any dtype and device.   length: T or more.
    Returns (B, length, D), the same tensor when T is the length already, and (B, length) bool on its device, True where
    attention may look. Raises ShapeError when states are longer than that.
    """
    size = _checked_room(states, length)
    mask = torch.arange(length, device=states.device) < size["T"]
    padding = states.new_zeros(size["B"], length - size["T"], size["D"])
    padded = states if length == size["T"] else torch.cat([states, padding], dim=1)
    return padded, mask.expand(size["B"], length)


def pad_with(states: Tensor, empty: Tensor, length: int) -> Tensor:
    """Fill token states up with those of the empty prompt, whole chunks of them. Attention does notice.

    states: (B, T, D).   empty: (L, D), of the same dtype and device.   length: T plus a multiple of L.
    Returns (B, length, D), the same tensor when T is the length already. Raises ShapeError when that does not add up.
    """
    size = _checked_room(states, length)
    chunk = check_axes("empty", empty, "L D", D=size["D"])["L"]
    missing = length - size["T"]
    if chunk < 1 or missing % chunk:
        raise ShapeError(f"empty: axis L is {chunk}, which does not divide the {missing} rows that are missing")
    if not missing:
        return states
    return torch.cat([states, empty.repeat(missing // chunk, 1).expand(size["B"], -1, -1)], dim=1)


def _checked_room(states: Tensor, length: int) -> dict[str, int]:
    size = check_axes("states", states, "B T D")
    if length < size["T"]:
        raise ShapeError(f"states: axis T is {size['T']}, more than the wanted length of {length}")
    return size
