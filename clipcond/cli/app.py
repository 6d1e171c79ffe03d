"""The Typer app that every command's module adds itself to."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from shutil import get_terminal_size
from typing import Annotated, Any, ParamSpec

import typer
from typer.core import TyperGroup

from clipcond._version import __version__
from clipcond.cli.command_groups import GROUPS
from clipcond.cli.examples import examples
from clipcond.cli.exit_codes import INTERRUPTED
from clipcond.cli.interruption import tell

P = ParamSpec("P")

MOST_COLUMNS = 100  # of a help
MOST_LETTERS = 200  # of a command's line in the list of all: beyond any, so that none ends in dots


def _width() -> int:
    return min(get_terminal_size().columns, MOST_COLUMNS) - 2


class _Commands(TyperGroup):
    """The commands, whose help lists them by what people do."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each group's commands, a line each where the terminal is wide enough."""
        column = max(map(len, self.commands))
        for group, names in GROUPS.items():
            with formatter.section(group):
                commands = [self.commands[name] for name in names if name in self.commands]
                formatter.write_dl([(f"{c.name:<{column}}", c.get_short_help_str(MOST_LETTERS)) for c in commands])


app = typer.Typer(
    name="clipcond",
    cls=_Commands,
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
