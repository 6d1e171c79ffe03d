"""The command line. `main` is the console script; nothing else in clipcond imports Typer or Rich."""

from clipcond.cli.main import main

__all__ = ["main"]
