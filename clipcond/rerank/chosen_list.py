"""The list of chosen pictures that a contact sheet exports.

{"clipcond": "chosen", "version": 1, "keep": ["/home/me/run/a.png"], "discard": ["/home/me/run/b.png"]}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from clipcond.errors import DataError

KIND, VERSION = "chosen", 1
_LARGEST = 1 << 26  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Pictures to keep and to discard; a relative path is from the list's own folder."""

    keep: tuple[Path, ...]
    discard: tuple[Path, ...]


def read_chosen(path: Path) -> Chosen:
    """Read a list. Raises DataError for what is none."""
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} is too large to be a list of chosen pictures")
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON; expected the list that a contact sheet saves") from error
    if not isinstance(document, dict) or document.get("clipcond") != KIND or document.get("version") != VERSION:
        raise DataError(f"{path} is no list of chosen pictures; expected the file that a contact sheet saves")
    return Chosen(keep=_paths(path, document, "keep"), discard=_paths(path, document, "discard"))


def _paths(path: Path, document: dict[str, object], name: str) -> tuple[Path, ...]:
    found = document.get(name, [])
    if not isinstance(found, list) or not all(isinstance(each, str) and each for each in found):
        raise DataError(f"{path}: {name} is no list of paths")
    return tuple(path.absolute().parent / each for each in found)
