"""From arguments to an exit code: the module that a command needs, and the one place where errors become exit codes.

A command's module is imported only when that command, or the help that lists all of them, is asked for:
`clipcond rerank` starts without the modules, and without the imports, of every other command. `clipcond tokens` in its
plain forms does without Typer too, which takes longer to start than the tokens take to count.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from itertools import takewhile
from typing import TextIO, cast

from clipcond.cli.command_groups import COMMANDS
from clipcond.cli.exit_codes import FAILED, INTERRUPTED, OK, READER_GONE, USAGE
from clipcond.cli.interruption import check, interrupted, noted, told
from clipcond.cli.stand_ins import STAND_INS
from clipcond.errors import ClipCondError, OptionsError
from clipcond.wording import visible

_LESS_MEMORY = {"--batch-size": "a smaller --batch-size", "--grad-cache": "a smaller --grad-cache"}
_FULL = ("out of memory", "can't allocate memory", "not enough memory")  # of torch on MPS, and on a CPU


def _load(command: str | None) -> None:
    """Import the module of `command`; the modules of all commands when it names none of them."""
    modules = [COMMANDS[command]] if command in COMMANDS else list(dict.fromkeys(COMMANDS.values()))
    for module in modules:
        import_module(module)


def _plain_tokens(arguments: list[str]) -> int | None:
    """Run `clipcond tokens` without Typer; None, and nothing done, for all that needs Typer's care or messages."""
    if not arguments or arguments[0] != "tokens":
        return None
    from clipcond.cli.tokens_plain import plain_request, run

    if (request := plain_request(arguments[1:])) is None:
        return None
    return run(request)


def _one_line(error: BaseException) -> str:
    """Return the text of an error without line breaks and control characters; its class's name if it has no text."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    else:
        text = " ".join(str(error).split()) or type(error).__name__
    return visible(text)


def _memory_is_full(error: BaseException) -> bool:
    """True for an allocation that failed: Python's own, torch's on a GPU or on a CPU, which it has no class for."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)


def _full_line(error: BaseException, command: str | None) -> str:
    """Say in a line what was asked for, and what of the command's own options needs less."""
    said = re.split(r"(?<=[.!?])\s", _one_line(error))
    asked = next((each for each in said if "allocate" in each.lower()), said[0]).rstrip(".")
    ways = [way for option, way in _LESS_MEMORY.items() if option in _options_of(command)]
    return f"the memory is full: {asked}; {' or '.join(ways) or 'a smaller model or input'} needs less"


def _options_of(command: str | None) -> set[str]:
    """Return the options that a command takes, none for one that there is not."""
    if command not in COMMANDS:
        return set()
    _load(command)
    from typer.main import get_group

    from clipcond.cli.app import app

    known = get_group(app).commands[command]
    return {option for parameter in known.params for option in parameter.opts}


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
    if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape", "backslashreplace"):
        stream.reconfigure(errors=STAND_INS)


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
            code = _with_typer(arguments, command)
    except SystemExit as leaving:  # Rich and Typer, where the reader of their output went away
        if isinstance(leaving.__context__, OSError):
            raise BrokenPipeError from leaving
        raise
    sys.stdout.flush()
    return code


def _with_typer(arguments: list[str], command: str | None) -> int:
    """Run a command through Typer, and return its exit code. Wrong usage is told here, in one line and a hint."""
    _load(command)
    check()
    import typer

    from clipcond.cli.app import app

    # the class of all that Typer raises about arguments, which has no public name
    wrong_usage = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
    try:
        with warnings.catch_warnings():
            # Pillow's, for pictures that are large and yet are read; those that are too large become errors
            warnings.filterwarnings("ignore", r"Image size \(\d+ pixels\) exceeds limit")
            warnings.showwarning = _show_warning
            code = app(args=arguments or ["--help"], prog_name="clipcond", standalone_mode=False)
    except wrong_usage as error:
        _tell_usage(error.format_message(), arguments, command)
        return USAGE
    except OptionsError as error:
        _tell_usage(str(error), arguments, command)
        return USAGE
    except typer.Abort:  # the end of standard input
        return FAILED
    if not arguments:
        return USAGE
    return code if isinstance(code, int) else OK


def _tell_usage(problem: str, arguments: Sequence[str], command: str | None) -> None:
    from clipcond.cli.hints import hint_for

    sys.stdout.flush()
    known = command if command in COMMANDS else None
    hint = hint_for(problem, arguments, known, tuple(COMMANDS))
    lines = [f"error: {visible(' '.join(problem.split()))}", *([f"hint: {visible(hint)}"] if hint else [])]
    lines.append(f"clipcond {known} --help shows the options" if known else "clipcond --help shows the commands")
    sys.stderr.write("\n".join(lines) + "\n")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a library's warning as a note in one line."""
    sys.stderr.write(f"note: {visible(' '.join(str(message).split()))}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (default: the process's own arguments) and return the exit code; never exits."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    options = list(takewhile(lambda word: word.startswith("-"), arguments))
    command = next(iter(arguments[len(options) :]), None)
    _open_closed_streams()
    _soften(sys.stdout)
    _soften(sys.stderr)
    with noted():
        try:
            code = _run(arguments, command)
        except KeyboardInterrupt:
            return _interrupted()
        except BrokenPipeError:
            _forget(sys.stdout)
            return READER_GONE
        except Exception as error:
            if interrupted():  # in the midst of an import, which made another error of it
                return _interrupted()
            if _memory_is_full(error) and "--debug" not in options:
                sys.stderr.write(f"error: {_full_line(error, command)}\n")
                return FAILED
            # ours and the system's; a stray ValueError is a bug and keeps its traceback
            if "--debug" in options or not isinstance(error, (ClipCondError, OSError)):
                raise
            sys.stderr.write(f"error: {_one_line(error)}\n")
            return FAILED
        return _interrupted() if interrupted() else code


def _interrupted() -> int:
    if not told():  # Typer ends without a word where it reads the arguments
        sys.stderr.write("interrupted\n")
    return INTERRUPTED
