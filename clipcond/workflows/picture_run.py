"""The files of one run of `generate`: their numbers and seeds, and a record that lets the same command go on.

A run that is stopped, or killed among the moves of `--keep`, leaves `.clipcond-run-KEY.json` beside its pictures. KEY
stands for all options, so that the same command finds it; another command takes the next free numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from filecmp import cmp
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.files import UNFINISHED, write_file
from clipcond.images.write import folder_for_pictures, highest, numbered

if TYPE_CHECKING:
    from clipcond.workflows.generate_options import GenerateOptions

REJECTED = "rejected"  # the folder, beside the pictures that are kept, for those that are not
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRun:
    """The files of a run, in order, and its seed. goes_on: a record was there.   others: records of other commands."""

    files: tuple[Path, ...]
    seed: int
    first: int
    record: Path
    goes_on: bool
    others: int = 0

    @property
    def folder(self) -> Path:
        """The folder of the pictures that are kept."""
        return self.record.parent

    @property
    def rejected(self) -> Path:
        """The folder of the others."""
        return self.folder / REJECTED

    def place(self, number: int) -> Path | None:
        """Return where picture `number` of the run is; None if it is not made yet."""
        name = self.files[number].name
        return next((file for file in (self.folder / name, self.rejected / name) if file.is_file()), None)

    def missing(self, numbers: Sequence[int]) -> list[int]:
        """Return those of some pictures that are not made yet."""
        return [number for number in numbers if self.place(number) is None]

    def begin(self) -> None:
        """Write the record, before the first picture; put right what a kill left: half-written pictures, cut moves."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.goes_on:
            write_file(self.record, json.dumps({"first": self.first, "seed": self.seed}), overwrite=True)
            return
        for file in self.files:
            for folder in (self.folder, self.rejected):
                for remains in folder.glob(f".{file.name}.*{UNFINISHED}"):
                    remains.unlink(missing_ok=True)
            moved = self.rejected / file.name
            if file.is_file() and moved.is_file() and cmp(file, moved, shallow=False):
                moved.unlink()  # it had its new name and still its old one

    def end(self) -> None:
        """Remove the record: all pictures are made and where they belong."""
        self.record.unlink(missing_ok=True)


def plan_run(options: GenerateOptions) -> PictureRun:
    """Find the record of the same command, or take the next free numbers, with the next seed if none is given.

    Raises OutputExists where a folder's name is a file's.
    """
    folder = folder_for_pictures(options.out)
    rejected = folder / REJECTED
    if options.keep is not None:
        folder_for_pictures(rejected)
    record = folder / f".clipcond-run-{_key(options)}.json"
    found = _read(record)
    if found is None:
        used = highest((folder, rejected))
        first = used[0] + 1 if used else 0
        seed = options.seed if options.seed is not None else _next_seed(used, options.count)
    else:
        first, seed = found
    return PictureRun(
        files=tuple(numbered(folder, options.count, seed, first=first)),
        seed=seed,
        first=first,
        record=record,
        goes_on=found is not None,
        others=sum(other != record for other in folder.glob(".clipcond-run-*.json")) if folder.is_dir() else 0,
    )


def _next_seed(used: tuple[int, int] | None, count: int) -> int:
    """Return the seed behind all that were used; 0 in a folder without pictures."""
    seed = used[1] + 1 if used else 0
    return seed if seed + count - 1 <= _LARGEST_SEED else 0


def _key(options: GenerateOptions) -> str:
    """Return a short name of all options but the folder."""
    known = {name: value for name, value in asdict(options).items() if name not in ("out", "batch_size")}
    return blake2b(json.dumps(known, sort_keys=True, default=str).encode(), digest_size=6).hexdigest()


def _read(record: Path) -> tuple[int, int] | None:
    """Return first number and seed of a record; None where it is not there or damaged."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        document = json.loads(record.read_text(encoding="utf-8"))
        first, seed = document["first"], document["seed"]
        if isinstance(first, int) and isinstance(seed, int) and 0 <= first <= 10**9 and 0 <= seed <= _LARGEST_SEED:
            return first, seed
    return None
