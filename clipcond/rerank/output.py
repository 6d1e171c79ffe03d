"""A ranking as a file: CSV, JSON lines, or Parquet, by its ending."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from clipcond.errors import OptionsError
from clipcond.files import check_output, write_file
from clipcond.rerank.rows import RankedImage, Ranking

ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


def check_ranking_file(path: Path) -> None:
    """Raise OptionsError for an ending that names no format or one that cannot be written here.

    Raises OutputExists and ResourceMissing as `files.check_output` does.
    """
    if path.suffix not in ENDINGS:
        raise OptionsError(f"{path} ends in {path.suffix or 'nothing'}; expected one of {', '.join(ENDINGS)}")
    if path.suffix == ".parquet":
        _pyarrow()
    check_output(path)


def write_ranking(path: Path, ranking: Ranking) -> Path:
    """Write every row. Raises as `check_ranking_file` does, and OSError."""
    check_ranking_file(path)
    rows = [_flat(row) for row in ranking.rows]
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".parquet":
        return write_file(path, _parquet(rows, names, ranking))
    if path.suffix in (".csv", ".tsv"):
        return write_file(path, _csv(rows, names, "\t" if path.suffix == ".tsv" else ","))
    if path.suffix == ".json":
        return write_file(path, json.dumps(document(ranking), indent=1, ensure_ascii=False) + "\n")
    return write_file(path, "".join(json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in ranking.rows))


def document(ranking: Ranking) -> dict[str, object]:
    """The whole ranking as JSON values: what its numbers are, and its rows."""
    header = ranking.header
    scales = dict(header.scales) if header else {}
    return {
        "model": ranking.model,
        "prompt": ranking.prompt,
        "score": header.score if header else None,
        "scales": scales,
        "preprocessing": header.preprocessing if header else None,
        "dtype": header.dtype if header else None,
        "noise": header.noise if header else None,
        "unseen_words": list(ranking.unseen),
        "rows": [row.to_json() for row in ranking.rows],
    }


def _flat(row: RankedImage) -> dict[str, object]:
    """A row without nesting: the missing phrases as one text."""
    values = row.to_json()
    if values.pop("phrases", None) is not None:
        values["missing"] = "; ".join(row.missing)
    return values


def _csv(rows: Sequence[dict[str, object]], names: Sequence[str], separator: str) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, names, delimiter=separator, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "replace").decode()


def _parquet(rows: Sequence[dict[str, object]], names: Sequence[str], ranking: Ranking) -> bytes:
    arrow, parquet = _pyarrow()
    table = arrow.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    about = {key: value for key, value in document(ranking).items() if key != "rows"}
    table = table.replace_schema_metadata({"clipcond": json.dumps(about)})
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise OptionsError(
            "Parquet needs pyarrow, which is not installed: pip install pyarrow, or write .csv"
        ) from error
