"""The held-out captions that a run tells best and worst from the others, with their pictures, in `pairs.json`."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from clipcond.errors import DataError
from clipcond.files import write_file
from clipcond.images.image_source import ImageSource
from clipcond.images.thumbnail import thumbnail_uri
from clipcond.score.retrieval import Margins
from clipcond.train.evaluate import Gallery

FILE = "pairs.json"
_SHOWN = 6  # of each kind
_SIDE = 192  # pixels


def keep_before(folder: Path, margins: Margins) -> None:
    """Write the ranks of all captions before the first step."""
    write_file(folder / FILE, json.dumps({"before": margins.rank.tolist()}) + "\n", overwrite=True)


def write_pairs(folder: Path, of: Gallery, margins: Margins) -> None:
    """Write the best and the worst captions, beside the ranks before where those of this gallery were kept."""
    before = _before(folder, len(of.texts))
    order = np.argsort(margins.margin, kind="stable")
    count = min(_SHOWN, len(order) // 2)
    worst, best = order[:count], order[::-1][:count]
    document = {
        "before": before,
        "images": len(of.rows),
        "best": [_pair(int(text), of, margins, before) for text in best],
        "worst": [_pair(int(text), of, margins, before) for text in worst],
    }
    write_file(folder / FILE, json.dumps(document, ensure_ascii=True) + "\n", overwrite=True)


def _pair(text: int, of: Gallery, margins: Margins, before: list[int]) -> dict[str, Any]:
    """A caption: its own picture, the one that it was taken for, their cosines, and the own one's rank, 1 for the first."""
    return {
        "caption": of.texts[text],
        "rank": int(margins.rank[text]) + 1,
        "rank_before": before[text] + 1 if before else None,
        "cosine": round(float(margins.right[text]), 4),
        "picture": _picture(of, int(margins.right_image[text])),
        "other_cosine": round(float(margins.wrong[text]), 4),
        "other": _picture(of, int(margins.wrong_image[text])),
    }


def _picture(of: Gallery, image: int) -> dict[str, str]:
    source: ImageSource = of.pairs.images[of.rows[image]]
    found = ""
    with suppress(DataError), source.stream() as stream:
        found = thumbnail_uri(stream, _SIDE, name=str(source))
    return {"name": source.name or source.path.name, "uri": found}


def _before(folder: Path, count: int) -> list[int]:
    """Return the ranks before; none where they are not known, or are of another gallery."""
    try:
        found = json.loads((folder / FILE).read_bytes())["before"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found if isinstance(found, list) and len(found) == count and all(type(n) is int for n in found) else []
