"""The Typer app that every command's module adds itself to."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from shutil import get_terminal_size
from typing import Annotated, ParamSpec

import typer

from clipcond._version import __version__
from clipcond.cli.examples import examples
from clipcond.cli.exit_codes import INTERRUPTED
from clipcond.cli.interruption import tell

P = ParamSpec("P")

MOST_COLUMNS = 100  # of a help


def _width() -> int:
    return min(get_terminal_size().columns, MOST_COLUMNS) - 2


app = typer.Typer(
    name="clipcond",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "terminal_width": _width()},
)


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Add a command to the app under its function's name, with examples under its help; Ctrl-C ends it with a word."""

    @app.command(epilog=examples(function.__name__.replace("_", "-")))
    @wraps(function)
    def interruptible(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            raise stopped("interrupted") from None

    return interruptible


def stopped(sentence: str) -> typer.Exit:
    """Say what an interruption left, in one sentence; gives the exception that ends the command."""
    tell(sentence)
    return typer.Exit(INTERRUPTED)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"clipcond {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Prompts, pictures and CLIP text encoders: count, encode, generate, rerank, retrain.

    Everything works offline on the embedded model mini; try clipcond demo.
    """
