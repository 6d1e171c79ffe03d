"""Files of prompts, one a line, and the general ones that ship."""

from __future__ import annotations

from pathlib import Path

from clipcond.errors import DataError
from clipcond.resources import bundled


def read_prompts(path: Path | None) -> tuple[str, ...]:
    """Return the prompts of a file, one a line, `#` lines left out; the shipped ones for None. Raises DataError, OSError."""
    file = path or bundled("prompts", "general.txt")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise DataError(f"{file} is not UTF-8; save it as UTF-8 text, one prompt a line") from None
    found = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if len(found) < 2:
        raise DataError(f"{file} holds {len(found)} different prompts; expected two or more, one a line")
    return found
