"""Draw the explained picture of the README: one prompt on the embedded model, its picture and each phrase's map.

    python scripts/explained_picture.py docs/images/explained.webp

The same call writes the same picture. A prompt of two objects, with a phrase that `mini` does not know.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import clipcond
from clipcond.files import write_file
from clipcond.pages.map_grid import map_grid

PROMPT = "a red circle at the top left, a blue star in the center, masterpiece, on a pink background"


def main(path: str) -> None:
    pipe = clipcond.load_pipeline("mini")
    pipe.set_progress_bar_config(disable=True)
    explanation = clipcond.explain(pipe, PROMPT, seed=0)
    sheet = map_grid(explanation, columns=5)
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=90, method=6)
    write_file(Path(path), file.getvalue(), overwrite=True)
    print(f"{path}: {len(file.getvalue()) / 1024:.0f} KiB, dead: {', '.join(explanation.dead)}")


if __name__ == "__main__":
    main(sys.argv[1])
