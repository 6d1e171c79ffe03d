"""The Typer app that every command's module adds itself to."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated, ParamSpec

import typer

from clipcond._version import __version__
from clipcond.errors import OptionsError

P = ParamSpec("P")

app = typer.Typer(
    name="clipcond",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Add a command to the app under its function's name; an OptionsError becomes wrong usage, with exit code 2."""

    @app.command()
    @wraps(function)
    def with_usage(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except OptionsError as error:
            raise typer.BadParameter(str(error)) from error

    return with_usage


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

    Everything works offline on the embedded model [bold]mini[/bold]; try [bold]clipcond demo[/bold].
    """
