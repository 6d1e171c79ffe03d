"""`clipcond tokens --live`: a line to type in, its tokens and its count, drawn again at every key.

The screen is drawn on standard error, so that standard output stays free for what is shown at the end. Keys are read
without a library: termios where there is one, msvcrt on Windows.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TextIO

from clipcond.cli.render import stderr_console
from clipcond.errors import ConfigError
from clipcond.prompt.analysis.plan_summary import dialect_meant, stock_reading, stock_tokens, with_flag
from clipcond.wording import visible

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.text import Text

    from clipcond.prompt.plan import PromptPlan

DONE, LEAVE = "enter", "escape"

_KEYS = {
    "\r": DONE,
    "\n": DONE,
    "\x1b": LEAVE,
    "\x04": LEAVE,  # Ctrl-D
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x01": "home",  # Ctrl-A and so on, as in a shell
    "\x05": "end",
    "\x02": "left",
    "\x06": "right",
    "\x0b": "cut-end",
    "\x15": "cut-start",
    "\x17": "cut-word",
    "\x1b[D": "left",
    "\x1bOD": "left",
    "\x1b[C": "right",
    "\x1bOC": "right",
    "\x1b[1;5D": "word-left",
    "\x1bb": "word-left",
    "\x1b[1;5C": "word-right",
    "\x1bf": "word-right",
    "\x1b[H": "home",
    "\x1bOH": "home",
    "\x1b[1~": "home",
    "\x1b[F": "end",
    "\x1bOF": "end",
    "\x1b[4~": "end",
    "\x1b[3~": "delete",
    "\x1b\x7f": "cut-word",
}
_PASTE, _PASTED = "\x1b[200~", "\x1b[201~"
_WINDOWS_KEYS = {"K": "\x1b[D", "M": "\x1b[C", "G": "\x1b[H", "O": "\x1b[F", "S": "\x1b[3~", "s": "\x1bb", "t": "\x1bf"}
_TICK = 0.25  # seconds between looks at the size of the terminal


@dataclass(frozen=True, slots=True)
class Line:
    """The typed text, and the number of characters before the cursor."""

    text: str = ""
    cursor: int = 0

    def type(self, typed: str) -> Line:
        """Return the line with text put in at the cursor."""
        return Line(self.text[: self.cursor] + typed + self.text[self.cursor :], self.cursor + len(typed))

    def press(self, key: str) -> Line:
        """Return the line after a key that moves or deletes; unknown keys change nothing."""
        before, after = self.text[: self.cursor], self.text[self.cursor :]
        match key:
            case "left":
                return replace(self, cursor=max(self.cursor - 1, 0))
            case "right":
                return replace(self, cursor=min(self.cursor + 1, len(self.text)))
            case "home":
                return replace(self, cursor=0)
            case "end":
                return replace(self, cursor=len(self.text))
            case "word-left":
                return replace(self, cursor=_word_start(before))
            case "word-right":
                return replace(self, cursor=self.cursor + _word_end(after))
            case "backspace":
                return Line(before[:-1] + after, max(self.cursor - 1, 0))
            case "delete":
                return Line(before + after[1:], self.cursor)
            case "cut-start":
                return Line(after, 0)
            case "cut-end":
                return Line(before, self.cursor)
            case "cut-word":
                kept = _word_start(before)
                return Line(before[:kept] + after, kept)
        return self


def _word_start(text: str) -> int:
    """Return the offset at which the last word of a text begins."""
    return len(text.rstrip()) - len(text.rstrip().split()[-1]) if text.strip() else 0


def _word_end(text: str) -> int:
    """Return the offset at which the first word of a text ends."""
    return len(text) - len(text.lstrip()) + len(text.split()[0]) if text.strip() else len(text)


class Keys:
    """A decoder of a terminal's input: `("text", "…")` for typed or pasted text, `("key", name)` for the other keys."""

    def __init__(self) -> None:
        self._held = ""  # the beginning of a sequence, or of a paste

    def feed(self, sent: str, *, more: bool = False) -> Iterator[tuple[str, str]]:
        """Yield the keys in some input. more: the rest of an unfinished sequence may still come."""
        sent, self._held = self._held + sent, ""
        while sent:
            if sent.startswith(_PASTE):
                pasted, end, rest = sent[len(_PASTE) :].partition(_PASTED)
                if not end:
                    self._held = sent  # a long paste comes in parts
                    return
                yield "text", pasted.replace("\r\n", "\n").replace("\r", "\n")
                sent = rest
                continue
            length = _sequence(sent)
            if length == 0 and more:
                self._held = sent
                return
            head, sent = sent[: max(length, 1)], sent[max(length, 1) :]
            if head in _KEYS:
                yield "key", _KEYS[head]
            elif head >= " " and not head.startswith("\x1b"):
                yield "text", head


def _sequence(sent: str) -> int:
    """Return the number of characters of the first key; 0 when it may be the beginning of a longer one."""
    if sent[0] != "\x1b":
        return 1
    if len(sent) == 1:
        return 0
    if sent[1] == "O":
        return 3 if len(sent) > 2 else 0
    if sent[1] != "[":
        return 2
    for at, character in enumerate(sent[2:], start=3):
        if "@" <= character <= "~":
            return at
    return 0


def type_prompt(prompt: str, plan: Callable[[str], PromptPlan]) -> str | None:
    """Let the user type; return the prompt when Enter is pressed, None when the user leaves with Escape.

    Ctrl-C raises KeyboardInterrupt. Raises ConfigError where there is no terminal to type in.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError("--live needs a terminal to type in; give the prompt as an argument instead")
    from rich.live import Live

    console, line, keys = stderr_console(), Line(prompt, len(prompt)), Keys()
    with _raw(sys.stdin) as read, Live(console=console, screen=True, auto_refresh=False) as live:
        drawn: tuple[Line, tuple[int, int]] | None = None
        while True:
            if drawn != (line, console.size):
                drawn = line, console.size
                live.update(screen(line, plan(line.text), console), refresh=True)
            sent, more = read()
            for kind, value in keys.feed(sent, more=more):
                if kind == "text":
                    line = line.type(value)
                elif value == DONE:
                    return line.text
                elif value == LEAVE:
                    return None
                else:
                    line = line.press(value)


# drawing


def screen(line: Line, plan: PromptPlan, console: Console) -> Group:
    """Draw the counts, a gauge, the tokens with the cursor, the warnings, and the keys."""
    from itertools import groupby

    from rich.console import Group
    from rich.text import Text

    from clipcond.cli.tokens_view import counter

    encoders = list(plan.encoders.values())
    head = Text(f"{plan.family} · read as {plan.dialect}", style="bold")
    for _, same in groupby(encoders, key=lambda encoder: encoder.chunks):
        group = list(same)
        head.append("   " + ", ".join(encoder.name for encoder in group) + " ", style="dim").append(counter(group[0]))
    foot = Text("Enter shows it · Esc leaves · ←→ Home End Ctrl-W Ctrl-U edit", style="dim")
    encoder = encoders[0]
    warnings = Text()
    for finding in sorted(plan.warnings, key=lambda finding: not dialect_meant(finding)):
        warnings.append(f"{finding.code}", style="bold yellow").append(f": {visible(with_flag(finding))}\n")
    if reading := stock_reading(encoder):
        warnings.append(f"{reading}\n", style="bold red" if encoder.dropped else "bold")
    if encoder.dropped:
        warnings.append(visible(encoder.dropped.text), style="red").append("\n")
    height = max(console.height - 6, 2)
    warning_lines = warnings.wrap(console, console.width)[: max(height // 3, 1)] if warnings else []
    body = _around_cursor(_typed(line, plan, console), console, height - len(warning_lines))
    for text in (head, foot):
        text.truncate(console.width, overflow="ellipsis")
    gauge = _gauge(stock_tokens(encoder) or encoder.content_tokens or 0, encoder.limit, console.width)
    return Group(head, gauge, Text(), *body, Text(), *warning_lines, foot)


def _gauge(count: int, limit: int, width: int) -> Text:
    """Draw what a stock pipeline reads as a bar that is full at the limit and turns red beyond it."""
    from rich.text import Text

    from clipcond.cli.tokens_stats import bar_of

    room = max(min(width - 2, limit), 10)
    gauge = Text(bar_of(min(count / limit, 1), room), style="red" if count > limit else "green")
    gauge.pad_right(room - gauge.cell_len, "·")
    return gauge


def _typed(line: Line, plan: PromptPlan, console: Console) -> tuple[Text, int]:
    """Return the line in the colours of its tokens, the cursor reversed, and the cursor's offset in it."""
    from rich.text import Text

    from clipcond.cli.tokens_view import token_style

    encoder = plan.encoders[plan.counted]
    typed = Text(visible(line.text) + " ")
    for chunk in encoder.chunks:
        for number, token in enumerate(chunk.tokens):
            if look := token_style(number, token.weight, console):
                typed.stylize(look, token.start, token.end)
    if encoder.dropped:
        typed.stylize("dim", encoder.dropped.start, encoder.dropped.end)
    typed.stylize("reverse", line.cursor, line.cursor + 1)
    return typed, line.cursor


def _around_cursor(typed: tuple[Text, int], console: Console, height: int) -> list[Text]:
    """Return as many lines of the wrapped text as fit, those around the cursor."""
    text, cursor = typed
    lines = list(text.wrap(console, console.width - 1, no_wrap=False, overflow="fold"))
    above = len(text[:cursor].wrap(console, console.width - 1, overflow="fold")) if cursor else 1
    first = max(0, min(above - height // 2 - 1, len(lines) - height))
    return lines[first : first + height]


# reading keys


Read = Callable[[], tuple[str, bool]]  # the input since the last call (perhaps none), and True if more may come


@contextmanager
def _raw(stdin: TextIO) -> Iterator[Read]:
    """Read keys as they are pressed, not echoed, for as long as the block runs."""
    if sys.platform == "win32":
        yield _read_windows
        return
    import termios
    import tty

    number = stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        sys.stderr.write("\x1b[?2004h")  # mark pasted text, so that its line feeds are not Enter
        sys.stderr.flush()
        yield _reader(number)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
        sys.stderr.write("\x1b[?2004l")
        sys.stderr.flush()


def _reader(number: int) -> Read:
    import os
    import select

    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    waiting = False

    def read() -> tuple[str, bool]:
        nonlocal waiting
        ready, _, _ = select.select([number], [], [], 0.05 if waiting else _TICK)
        if not ready:  # an Escape that nothing followed is the key
            waiting = False
            return "", False
        sent = os.read(number, 65536)
        if not sent:  # the terminal is gone
            return "\x04", False
        waiting = True
        return decode(sent), True

    return read


def _read_windows() -> tuple[str, bool]:
    import time

    if sys.platform != "win32":
        raise AssertionError("called on Windows only")
    import msvcrt

    if not msvcrt.kbhit():
        time.sleep(0.02)
        return "", False
    character = msvcrt.getwch()
    if character in "\x00\xe0":  # an arrow, or the like
        return _WINDOWS_KEYS.get(msvcrt.getwch(), ""), False
    if character == "\x03":
        raise KeyboardInterrupt
    return character, False
