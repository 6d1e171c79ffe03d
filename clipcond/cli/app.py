"""The Typer app that every command's module adds itself to."""

from __future__ import annotations

from typing import Annotated

import typer

from clipcond._version import __version__
from clipcond.cli.main import CHECK_FAILED, FAILED, INTERRUPTED, OK, READER_GONE, USAGE, main

__all__ = ["CHECK_FAILED", "FAILED", "INTERRUPTED", "OK", "READER_GONE", "USAGE", "app", "main"]

app = typer.Typer(
    name="clipcond",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
