"""Pictures and prompts from tables: a pair a row, by name and never by position; and lists of prompts."""

from __future__ import annotations

from pathlib import Path

from clipcond.errors import DataError
from clipcond.rerank.pairing import Pairing
from clipcond.rerank.tables import (
    IMAGE_COLUMNS,
    NEGATIVE_COLUMNS,
    PROMPT_COLUMNS,
    column_of,
    maybe_column_of,
    read_lines,
    read_table,
)

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")


def read_pairs(table: Path, negative_prompt: str | None = None) -> list[Pairing]:
    """Read a picture and its prompt from each row; paths are from the table's folder.

    negative_prompt: for the rows without one.   Raises DataError, naming the row that lacks either.
    """
    rows = read_table(table)
    image = column_of(table, rows, IMAGE_COLUMNS, "picture")
    prompt = column_of(table, rows, PROMPT_COLUMNS, "prompt")
    negative = maybe_column_of(rows, NEGATIVE_COLUMNS)
    pairs = []
    for number, row in enumerate(rows, 1):
        if not row.get(image) or not row.get(prompt):
            lacking = image if not row.get(image) else prompt
            raise DataError(f"{table}, row {number}: {lacking} is empty; expected a picture and its prompt")
        text = (row.get(negative) if negative else None) or negative_prompt
        path = Path(row[image]).expanduser()
        pairs.append(
            Pairing(path=table.parent / path, prompt=row[prompt], negative_prompt=text, source=f"pairs ({table.name})")
        )
    return pairs


def read_prompts(path: Path) -> list[tuple[str, str | None]]:
    """Read prompts and their negative ones, each once: a line each, or the rows of a table by its ending.

    Raises DataError where there are none.
    """
    if path.suffix not in _TABLES:
        return [(line, None) for line in read_lines(path, "prompts")]
    rows = read_table(path)
    prompt = column_of(path, rows, PROMPT_COLUMNS, "prompt")
    negative = maybe_column_of(rows, NEGATIVE_COLUMNS)
    found = {row[prompt]: (row.get(negative) if negative else None) or None for row in rows if row.get(prompt)}
    if not found:
        raise DataError(f"{path} holds no prompts; its column {prompt} is empty")
    return list(found.items())
