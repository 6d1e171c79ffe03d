"""Output of all commands: consoles for both streams, JSON, and an excerpt of a prompt with carets under it."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

from clipcond.cli.stand_ins import as_shown
from clipcond.wording import visible

_STEERING = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)  # a terminal, or its reader

if TYPE_CHECKING:
    from rich.console import Console


def stdout_console() -> Console:
    """Return a Rich console for data: plain text when piped or with NO_COLOR, never highlighted on its own."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def stderr_console() -> Console:
    """Return a Rich console for all that is not data: progress, notes, warnings."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def on_terminal() -> bool:
    """Return True if standard output is read by a person: lines for people, where a pipe gets JSON."""
    return sys.stdout.isatty()


def print_json(document: object, *, indent: int | None = None) -> None:
    """Write one JSON document and a newline to stdout.

    Escaped are characters that stdout cannot carry, and those that would steer a terminal or turn the direction of text.
    """
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    text = _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # an ASCII terminal, or half of a surrogate pair in the text
        text = json.dumps(document, ensure_ascii=True, indent=indent)
    sys.stdout.write(text + "\n")


def excerpt(text: str, start: int, end: int, width: int, encoding: str | None = "utf-8") -> tuple[str, str]:
    """Return the line of `text` that holds text[start:end], cut to `width` cells, and a line of carets under the passage.

    Measured in terminal cells, so that wide characters keep the carets in place, as do the escapes that `encoding`, the
    output's, needs. A passage that goes on in the next line is marked to the end of its first line.
    """
    from rich.cells import cell_len as cells

    def cell_len(part: str) -> int:
        return cells(as_shown(part, encoding))

    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", start)
    line = visible(text[line_start:] if line_end < 0 else text[line_start:line_end])
    first = start - line_start
    last = max(min(end - line_start, len(line), first + width), first + 1)
    left, right = max(first - width, 0), min(last + width, len(line))  # beyond that nothing can fit
    while left < first and cell_len(line[left:last]) > width - 2:
        left += 1
    while right > first + 1 and cell_len(line[left:right]) > width - 2:
        right -= 1
    before = ("…" if left else "") + line[left:first]
    shown = before + line[first:right] + ("…" if right < len(line) else "")
    return shown, " " * cell_len(before) + "^" * max(cell_len(line[first : min(last, right)]), 1)
