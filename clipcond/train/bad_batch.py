"""The batch at which a loss was not finite, kept for a look at its pairs."""

from __future__ import annotations

import json
from pathlib import Path

from clipcond.files import write_file
from clipcond.train.batches import Batch
from clipcond.train.run import Run


def keep_batch(run: Run, batch: Batch, what: str) -> Path:
    """Write the step, and of each pair of a batch its row, picture and caption, to a JSON file of the run's folder.

    what: was not finite. Each process of several writes its own share.
    """
    pairs = run.job.pairs
    drawn = [0] * len(batch.rows) if batch.drawn is None else batch.drawn.tolist()
    rows = [
        {"row": row, "image": str(pairs.images[row]), "caption": pairs.captions[row][number]}
        for row, number in zip(batch.rows.tolist(), drawn, strict=True)
    ]
    share = f"-process-{run.ranks.rank}" if run.ranks.count > 1 else ""
    path = run.folder.path / f"not-finite-step-{run.step + 1}{share}.json"
    document = {"step": run.step + 1, "what": what, "data": pairs.source, "pairs": rows}
    write_file(path, json.dumps(document, indent=2) + "\n", overwrite=True)
    return path
