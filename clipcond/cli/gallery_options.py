"""The arguments that all questions about pictures share, and how their answers are put out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.render import on_terminal, print_json, stdout_console
from clipcond.files import write_file
from clipcond.wording import visible
from clipcond.workflows.gallery import GalleryOptions

if TYPE_CHECKING:
    from clipcond.find.gallery import Unread

Images = Annotated[list[str], typer.Argument(help="Picture files, folders (their top level), or quoted patterns.")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Look into the folders below, too.")]
Model = Annotated[str, typer.Option("--model", "-m", help="mini, emoji, NAME/PRETRAINED, hf:ID, or a folder.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Pictures in one forward pass.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither use nor keep embeddings of earlier runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="A JSON line per picture.")]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write a row per picture into a CSV file.")]


def gallery_options(
    images: Sequence[str], model: str, recursive: bool, batch_size: int, no_cache: bool
) -> GalleryOptions:
    """The options of the pictures. Raises OptionsError."""
    return GalleryOptions(
        images=tuple(images), model=model, recursive=recursive, batch_size=batch_size, cache=not no_cache
    )


def names_of(text: str | None) -> tuple[str, ...]:
    """Names with commas between, blanks around them gone."""
    return () if text is None else tuple(name.strip() for name in text.split(","))


def percent(share: float) -> str:
    """A share in whole percent; `<1%` and not `0%` for what is small."""
    return "<1%" if share < 0.005 else f"{share:.0%}"


def for_programs(as_json: bool) -> bool:
    """True if stdout gets JSON: asked for, or read by no person."""
    return as_json or not on_terminal()


def print_rows(rows: Iterable[object], unread: Sequence[Unread]) -> None:
    """Print a JSON line per picture, those that could not be read at the end."""
    for row in (*rows, *(each.to_json() for each in unread)):
        print_json(row)


def print_table(titles: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]], unread: Sequence[Unread]) -> None:
    """Print a table for people, and a line for each picture that could not be read. titles: with True for numbers."""
    from rich.table import Table
    from rich.text import Text

    console = stdout_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, number in titles:
        table.add_column(title, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console.print(table)
    for each in unread:
        console.print(Text.assemble(("error ", "bold red"), (visible(f"{each.path}: {each.error}"), "red")))


def write_csv(path: Path, titles: Sequence[str], rows: Iterable[Sequence[object]], *, overwrite: bool = False) -> None:
    """Write a table with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows(rows)
    write_file(path, text.getvalue(), overwrite=overwrite)
