"""States of rows that were encoded before, by a key that says everything they depend on."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class States:
    """What an encoder says about one row, in its dtype; never written into."""

    hidden: Tensor  # (L, D)
    pooled: Tensor | None  # (D,)
    projected: Tensor | None  # (P,)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Those that are there, by name."""
        named = {"hidden": self.hidden, "pooled": self.pooled, "projected": self.projected}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @property
    def bytes(self) -> int:
        """What they take in memory."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class Cache:
    """The states used last, up to a number of bytes."""

    def __init__(self, limit: int = 256 * MIB) -> None:
        self._limit = limit
        self._held: OrderedDict[str, States] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> States | None:
        """What was put under `key`, if it is still there."""
        states = self._held.get(key)
        if states is not None:
            self._held.move_to_end(key)
        return states

    def put(self, key: str, states: States) -> None:
        """Keep a copy of the states, in place of those that were unused for longest."""
        copies = {name: tensor.detach().clone() for name, tensor in states.tensors.items()}
        kept = States(hidden=copies["hidden"], pooled=copies.get("pooled"), projected=copies.get("projected"))
        if key in self._held:
            self._bytes -= self._held.pop(key).bytes
        if kept.bytes > self._limit:
            return
        self._held[key] = kept
        self._bytes += kept.bytes
        while self._bytes > self._limit:
            self._bytes -= self._held.popitem(last=False)[1].bytes
