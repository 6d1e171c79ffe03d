"""Pictures that a table names, found again among the pictures of a run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


class PictureNames:
    """Pictures by the ways in which a table may name them: whole path, path beside the table, or file name alone."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._by_path = {_absolute(path): path for path in paths}
        counts = Counter(path.name for path in self._by_path.values())
        self._by_name = {path.name: path for path in self._by_path.values() if counts[path.name] == 1}

    def find(self, name: str, table: Path) -> Path | None:
        """The picture of a name in a table; a file name alone counts where only one picture has it."""
        for candidate in (Path(name), table.parent / name):
            found = self._by_path.get(_absolute(candidate))
            if found is not None:
                return found
        return self._by_name.get(Path(name).name) if Path(name).name == name else None


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - normalised, links kept
