"""What the recipe's scripts say of bad input: one line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from clipcond.errors import ClipCondError


def check_data(options: argparse.ArgumentParser, data: Path) -> None:
    """End with a line where `pictures.py` has not written its tables."""
    if not (data / "labels.csv").is_file():
        options.error(f"{data} has no labels.csv; run python recipes/emoji/pictures.py --out {data} first")


def run(main: Callable[[], None]) -> None:
    """Call a script; what clipcond refuses ends it with a line."""
    try:
        main()
    except ClipCondError as error:
        raise SystemExit(f"error: {error}") from None
