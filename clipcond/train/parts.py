"""Rows that take long to compute, kept in files as they come: an interruption loses what was not written yet, and no more."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from clipcond.files import writing

_EVERY = 60.0  # seconds between two files


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place of a run's parts: a folder, and of which pairs and pictures they are.

    writes: this process may write there; others only read.
    """

    folder: Path
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    writes: bool = True


class Parts:
    """The rows of one tensor, `NAME-00000000.safetensors` and on in a folder, each named by its first row."""

    def __init__(self, place: Place, name: str) -> None:
        self._place, self._name = place, name
        self.kept = 0

    def fill(self, count: int, group: int, compute: Callable[[slice], Tensor]) -> Tensor:
        """Return all (N, …) rows, each group of them computed at once, and those that are kept read instead.

        The first group is always computed: where its bits are not what is kept, the model or the machine is another, and
        all is computed anew.
        """
        parts = [compute(slice(0, min(group, count)))]
        kept = self._read(group)
        if kept is not None and len(kept) <= count and torch.equal(kept[: len(parts[0])], parts[0]):
            parts, self.kept = [kept], len(kept)
        else:
            self.remove()
        written, since = self.kept, time.monotonic()
        done = len(parts[0])
        try:
            while done < count:
                parts.append(compute(slice(done, min(done + group, count))))
                done += len(parts[-1])
                if time.monotonic() - since > _EVERY:
                    written, since = self._write(written, parts, done), time.monotonic()
        finally:
            self._write(written, parts, done)
        return torch.cat(parts)

    def remove(self) -> None:
        """Delete what is kept, and the folder if nothing else is in it."""
        self.kept = 0
        if not self._place.writes:
            return
        for path in self._place.folder.glob(f"{self._name}-*.safetensors"):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or never made
            self._place.folder.rmdir()

    def _write(self, start: int, parts: list[Tensor], stop: int) -> int:
        """Write the rows from `start` to `stop`; return where the next file begins."""
        if not self._place.writes or start == stop:
            return start
        from safetensors.torch import save

        self._place.folder.mkdir(parents=True, exist_ok=True)
        rows = torch.cat(parts)[start:stop].contiguous()
        with writing(self._path(start), overwrite=True) as file:
            file.write(save({"rows": rows}, metadata=dict(self._place.fingerprints)))
        self.kept = stop
        return stop

    def _read(self, group: int) -> Tensor | None:
        """Return the rows that are kept without a gap, of whole groups; None where there are none of these pairs."""
        from safetensors import SafetensorError, safe_open

        found: list[Tensor] = []
        start = 0
        while (path := self._path(start)).is_file():
            try:
                with safe_open(path, framework="pt") as file:
                    if (file.metadata() or {}) != dict(self._place.fingerprints):
                        break
                    found.append(file.get_tensor("rows"))
            except (OSError, SafetensorError):  # torn: what follows is computed again
                break
            start += len(found[-1])
        return torch.cat(found) if found and start >= group else None

    def _path(self, start: int) -> Path:
        return self._place.folder / f"{self._name}-{start:08d}.safetensors"
