"""Plots as files, drawn by matplotlib: the same bytes for the same numbers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import ModelError, OptionsError
from clipcond.files import check_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMS = (".png", ".svg")


def check_plot(path: Path, flag: str = "--plot") -> None:
    """Check, before any work, that a plot can be drawn into a file.

    Raises OptionsError for another ending, OutputExists, ResourceMissing, and ModelError without matplotlib.
    """
    if path.suffix.lower() not in FORMS:
        raise OptionsError(f"{flag} {path}: expected a name that ends in .png or .svg")
    check_output(path)
    if find_spec("matplotlib") is None:
        raise ModelError('a plot needs matplotlib, which is not installed: pip install "clipcond[plots]"')


def drawn(draw: Callable[[Figure], object], form: str, size: tuple[float, float]) -> bytes:
    """Return a `png` or `svg`. draw: fills an empty figure.   size: width and height in inches."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), rc_context({"svg.hashsalt": "clipcond", "svg.fonttype": "path", "font.size": 11}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of a name in a script that the font lacks
        figure = Figure(figsize=size, facecolor="white", layout="constrained")
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()
