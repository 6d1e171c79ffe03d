"""Text of others made fit to show: what a library said, in one line, and characters that steer a terminal made visible."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
# bidirectional classes of the characters that turn the direction of text
_STEERING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def first_line(error: BaseException) -> str:
    """Return a library's message in one line: the first that carries words, and the first detail of a state dict's report.

    Colours of a terminal are taken out; what else would steer it is made visible.
    """
    plain = _ANSI.sub("", str(error))
    lines = [visible(" ".join(line.split())) for line in plain.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    text = lines[0] + (f" {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else "")
    return (text[:297] + "…" if len(text) > 298 else text).rstrip(".;")


def visible(text: str) -> str:
    """Text with a visible sign, one for one, for every character that would move the cursor or steer the terminal.

    Line feeds become `↵`, other control characters their pictures, direction overrides and broken characters `�`.
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def html_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, notes: Iterable[str] = ()
) -> str:
    """A table for a notebook, in its own colours: a title, rows of values, and notes below; everything is escaped."""

    def cells(tag: str, values: Sequence[object]) -> str:
        made = (f'<{tag} style="text-align:left">{escape(visible(str(value)))}</{tag}>' for value in values)
        return f"<tr>{''.join(made)}</tr>"

    listed = "".join(f"<li>{escape(visible(note))}</li>" for note in notes)
    return (
        f"<div><strong>{escape(visible(title))}</strong>"
        f"<table><thead>{cells('th', columns)}</thead><tbody>{''.join(cells('td', row) for row in rows)}</tbody></table>"
        + (f"<ul>{listed}</ul>" if listed else "")
        + "</div>"
    )


def _visible(character: str) -> str:
    code = ord(character)
    if character == "\n":
        return "↵"
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or unicodedata.bidirectional(character) in _STEERING:
        return "�"
    return character
