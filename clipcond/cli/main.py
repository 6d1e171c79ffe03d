"""From arguments to an exit code: the module that a command needs, and the one place where errors become exit codes.

A command's module is imported only when that command, or the help that lists all of them, is asked for:
`clipcond rerank` starts without the modules, and without the imports, of every other command. `clipcond tokens` in its
plain forms does without Typer too, which takes longer to start than the tokens take to count.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from itertools import takewhile
from typing import TextIO

from clipcond.cli.exit_codes import FAILED, INTERRUPTED, OK, READER_GONE
from clipcond.errors import ClipCondError

# command -> module that defines it, in the order of `clipcond --help`
COMMANDS = {
    "tokens": "clipcond.cli.tokens",
    "translate": "clipcond.cli.translate",
    "encode": "clipcond.cli.encode",
    "generate": "clipcond.cli.generate",
    "rerank": "clipcond.cli.rerank",
    "cache": "clipcond.cli.cache",
    "train": "clipcond.cli.train",
    "evaluate": "clipcond.cli.train",
    "models": "clipcond.cli.doctor",
    "doctor": "clipcond.cli.doctor",
    "demo": "clipcond.cli.demo",
}


def _load(command: str | None) -> None:
    """Import the module of `command`; the modules of all commands when it names none of them."""
    modules = [COMMANDS[command]] if command in COMMANDS else list(dict.fromkeys(COMMANDS.values()))
    for module in modules:
        import_module(module)
    from clipcond.cli.app import app

    place = {name: number for number, name in enumerate(COMMANDS)}
    app.registered_commands.sort(
        key=lambda info: place.get(str(info.name or getattr(info.callback, "__name__", "")), len(place))
    )


def _plain_tokens(arguments: list[str]) -> int | None:
    """Run `clipcond tokens` without Typer; None, and nothing done, for all that needs Typer's care or messages."""
    if not arguments or arguments[0] != "tokens":
        return None
    from clipcond.cli.tokens_plain import plain_request, run

    if (request := plain_request(arguments[1:])) is None:
        return None
    return run(request)


def _one_line(error: BaseException) -> str:
    """Return the text of an error without line breaks, or the name of its class if it has no text."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _forget(stream: TextIO) -> None:
    """Point a stream whose reader went away at nothing, so that the interpreter's last flush cannot fail."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # not a real file, in a test for instance: nothing left to flush
        return


def _soften(stream: TextIO) -> None:
    """Escape what a stream cannot carry (an ASCII terminal and an accent, say) instead of failing on it.

    Python opens stdout with `surrogateescape` in the C locale, which carries no more than `strict` does.
    """
    if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="backslashreplace")


def _open_closed_streams() -> None:
    """Stand in for standard streams that the process was started without: nothing to read, nowhere to write to.

    Otherwise Python leaves None in their place, and the next file that is opened gets their number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for the whole process


def _run(arguments: list[str], command: str | None) -> int:
    """Run a command, flush, and return its exit code; its errors pass through."""
    try:
        code = _plain_tokens(arguments)
        if code is None:
            _load(command)
            from clipcond.cli.app import app

            with warnings.catch_warnings():
                # Pillow's, for pictures that are large and yet are read; those that are too large become errors
                warnings.filterwarnings("ignore", r"Image size \(\d+ pixels\) exceeds limit")
                app(args=arguments, prog_name="clipcond")
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # Typer and Rich leave of their own accord
            raise leaving.__context__ from None
        code = leaving.code if isinstance(leaving.code, int) else OK
    sys.stdout.flush()
    return code or OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (default: the process's own arguments) and return the exit code; never exits."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = list(takewhile(lambda word: word.startswith("-"), arguments))
    debug = "--debug" in options
    _open_closed_streams()
    _soften(sys.stdout)
    _soften(sys.stderr)
    try:
        return _run(arguments, next(iter(arguments[len(options) :]), None))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _forget(sys.stdout)
        return READER_GONE
    except (
        ClipCondError,
        OSError,
    ) as error:  # ours and the system's; a stray ValueError is a bug and keeps its traceback
        if debug:
            raise
        sys.stderr.write(f"error: {_one_line(error)}\n")
        return FAILED
