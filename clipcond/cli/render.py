"""What the commands share when they write: consoles for both streams, JSON, and numbers for people."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def stdout_console() -> Console:
    """A Rich console for data: plain text when piped or with NO_COLOR, never highlighted on its own."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def stderr_console() -> Console:
    """A Rich console for everything that is not data: progress, notes, warnings."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(document: object, *, indent: int | None = None) -> None:
    """Write one JSON document and a newline to stdout; characters that stdout cannot carry are escaped."""
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # an ASCII terminal, or half of a surrogate pair in the text
        text = json.dumps(document, ensure_ascii=True, indent=indent)
    sys.stdout.write(text + "\n")
