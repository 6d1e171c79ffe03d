"""`clipcond tokens --live`: keys, the line, the screen, and the whole through a pseudo-terminal."""

from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from clipcond.cli import main
from clipcond.cli.tokens_live import Keys, Line, screen
from clipcond.prompt.plan import plan

# the line


@pytest.mark.parametrize(
    ("key", "text", "cursor"),
    [
        ("left", "a red fox", 4),
        ("right", "a red fox", 6),
        ("home", "a red fox", 0),
        ("end", "a red fox", 9),
        ("word-left", "a red fox", 2),
        ("word-right", "a red fox", 9),
        ("backspace", "a re fox", 4),
        ("delete", "a redfox", 5),
        ("cut-start", " fox", 0),
        ("cut-end", "a red", 5),
        ("cut-word", "a  fox", 2),
        ("unknown", "a red fox", 5),
    ],
)
def test_keys_move_and_delete(key: str, text: str, cursor: int) -> None:
    assert Line("a red fox", 5).press(key) == Line(text, cursor)


@pytest.mark.parametrize("key", ["left", "right", "word-left", "word-right", "backspace", "delete", "cut-word"])
@pytest.mark.parametrize("text", ["", "  "])
def test_keys_stay_within_the_line(key: str, text: str) -> None:
    for cursor in {0, len(text)}:
        line = Line(text, cursor).press(key)
        assert 0 <= line.cursor <= len(line.text)


def test_typing_goes_in_at_the_cursor() -> None:
    assert Line("a fox", 2).type("red ") == Line("a red fox", 6)


# keys


def test_what_a_terminal_sends_becomes_keys() -> None:
    assert list(Keys().feed("a\x1b[D\x7f漢\x1b[3~\r")) == [
        ("text", "a"),
        ("key", "left"),
        ("key", "backspace"),
        ("text", "漢"),
        ("key", "delete"),
        ("key", "enter"),
    ]


def test_unknown_sequences_are_left_out() -> None:
    assert list(Keys().feed("\x1b[99~\x1b[1;9Za\x00\x1bOP\x1bq")) == [("text", "a")]


def test_a_sequence_may_come_in_parts() -> None:
    keys = Keys()
    assert list(keys.feed("\x1b", more=True)) == []
    assert list(keys.feed("[", more=True)) == []
    assert list(keys.feed("D", more=True)) == [("key", "left")]


def test_an_escape_that_nothing_follows_is_the_key() -> None:
    keys = Keys()
    assert list(keys.feed("\x1b", more=True)) == []
    assert list(keys.feed("")) == [("key", "escape")]


def test_a_paste_keeps_its_line_feeds() -> None:
    keys = Keys()
    assert list(keys.feed("\x1b[200~a\r\nb", more=True)) == []
    assert list(keys.feed("\rc\x1b[201~\r", more=True)) == [("text", "a\nb\nc"), ("key", "enter")]


@pytest.mark.property
@given(st.lists(st.text("a\x1b[O~200;1D\r漢", max_size=12), max_size=6))
def test_keys_never_fail_and_never_type_an_escape(parts: list[str]) -> None:
    keys = Keys()
    line = Line()
    for part in parts:
        for kind, value in [*keys.feed(part, more=True)]:
            line = line.type(value) if kind == "text" else line.press(value)
    assert 0 <= line.cursor <= len(line.text)
    if "\x1b[200~" not in "".join(parts):
        assert "\x1b" not in line.text


# the screen


def drawn(text: str, *, width: int = 60, height: int = 14, cursor: int | None = None, **options) -> str:
    file = io.StringIO()
    options = {"force_terminal": True, "color_system": None} | options
    console = Console(file=file, width=width, height=height, highlight=False, markup=False, **options)
    line = Line(text, len(text) if cursor is None else cursor)
    console.print(screen(line, plan(text), console))
    return file.getvalue()


def test_the_screen_counts() -> None:
    shown = drawn("a red fox")
    assert shown.startswith("sd15 · read as plain   clip_l 3/75 → 1 chunk\n")
    assert "a red fox" in shown
    assert "Enter shows it" in shown


def test_the_screen_says_what_is_dropped_and_odd() -> None:
    shown = drawn("<|endoftext|> " + "fox " * 90, height=24)
    assert "/75 → 2 chunks" in shown
    assert "a stock pipeline drops" in shown
    assert "special-token-as-text" in shown


def test_tokens_have_colours_and_the_cursor_is_reversed() -> None:
    shown = drawn("rutkowski", color_system="truecolor", cursor=1)
    assert "48;2;165;216;255" in shown
    assert "48;2;255;224;102" in shown
    assert "\x1b[7;30;48;2;165;216;255mu" in shown


@pytest.mark.parametrize("text", ["", "fox " * 2000, "漢字" * 400, "x" * 3000, "a\nb\n" * 200])
@pytest.mark.parametrize("size", [(20, 8), (80, 24)])
def test_the_screen_fits_the_terminal(text: str, size: tuple[int, int]) -> None:
    for cursor in (0, len(text) // 2, len(text)):
        lines = drawn(text, width=size[0], height=size[1], cursor=cursor).splitlines()
        assert len(lines) <= size[1]
        assert max(map(cell_len, lines)) <= size[0]


def test_the_line_of_the_cursor_is_shown() -> None:
    text = " ".join(f"w{number}" for number in range(900))
    assert "w0 " in drawn(text, cursor=0)
    assert "w899" in drawn(text)
    assert "w450 " in drawn(text, cursor=text.index("w450"))


# the whole


def test_no_terminal_is_one_line_and_3(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["tokens", "--live"]) == 3
    assert capsys.readouterr().err == (
        "error: --live needs a terminal to type in; give the prompt as an argument instead\n"
    )


START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
from clipcond.cli import main
sys.exit(main())
"""


class Terminal:
    """`clipcond tokens --live` in a pseudo-terminal; standard output goes to a pipe of its own."""

    def __init__(self, *words: str) -> None:
        pty = pytest.importorskip("pty", reason="no pseudo-terminals on this system")
        self.master, slave = pty.openpty()
        command = [sys.executable, "-c", START, "tokens", "--live", *words]
        environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "70", "LINES": "20"}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stderr=slave,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, text: str) -> None:
        """Read what is drawn until it contains a text."""
        deadline = time.monotonic() + 60
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], 1)
            if ready:
                self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
            assert time.monotonic() < deadline, self.seen[-2000:]

    def send(self, keys: str) -> None:
        self.seen = ""
        os.write(self.master, keys.encode())

    def end(self) -> tuple[int, str]:
        """The exit code and what stands on standard output."""
        deadline = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < deadline:
            ready, _, _ = select.select([self.master], [], [], 0.05)
            if ready:
                try:
                    self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
                except OSError:  # Linux says so when the other end is closed
                    break
        out = self.process.communicate(timeout=60)[0].decode()
        os.close(self.master)
        return self.process.returncode, out


def test_typing_and_watching_the_count() -> None:
    terminal = Terminal()
    terminal.wait_for("0/75")
    terminal.send("a red fox")
    terminal.wait_for("3/75")
    terminal.send("\x1b[200~, 漢\x1b[201~")
    terminal.wait_for("7/75")
    terminal.send("\x17")  # Ctrl-W
    terminal.wait_for("4/75")
    terminal.send("\r")
    code, out = terminal.end()
    assert code == 0
    assert out.startswith("sd15 · clip_l  4/75 → 1 chunk")
    assert "\x1b[?1049l" in terminal.seen  # the screen is given back
    assert "\x1b[?2004l" in terminal.seen


def test_it_starts_with_a_prompt_and_ends_in_json() -> None:
    terminal = Terminal("a fox", "--json", "--fail-on-truncation")
    terminal.wait_for("2/75")
    terminal.send(" dog" * 75)
    terminal.wait_for("77/75")
    terminal.send("\r")
    code, out = terminal.end()
    assert code == 1
    assert '"truncated": true' in out


def test_escape_leaves_without_a_word() -> None:
    terminal = Terminal("a fox")
    terminal.wait_for("2/75")
    terminal.send("\x1b")
    assert terminal.end() == (0, "")


def test_control_c_is_130_and_the_terminal_is_as_before() -> None:
    terminal = Terminal("a fox")
    terminal.wait_for("2/75")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == (130, "")
    assert "\x1b[?1049l" in terminal.seen
