"""A collection's pictures and vectors out of its folder, as if they had been embedded just now."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from clipcond.encode.embedding_shards import ShardRow, read_shard
from clipcond.errors import DataError
from clipcond.rerank.collection import ABOUT, Collection, CollectionSettings, check_complete
from clipcond.rerank.embedding import Embedded, Picture
from clipcond.rerank.picture_prompt import PicturePrompt


def read_embeddings(folder: Path) -> tuple[Embedded, CollectionSettings]:
    """Return all pictures with their vectors, those that have an error behind the others.

    Raises DataError as `check_complete` does, and for shards that are damaged or of different models.
    """
    settings, collection = check_complete(folder), Collection(folder)
    shards = collection.shards(settings.shard_size)
    pictures: list[Picture] = []
    vectors = [np.zeros((0, settings.width), dtype=np.float32)]
    for shard in shards:
        found, own = read_stored_shard(collection.file(shard.number), settings)
        pictures += found
        vectors.append(own)
    bad = [Picture(path=Path(each.path), error=each.error) for each in collection.errors(shards)]
    return Embedded(pictures=(*pictures, *bad), vectors=torch.from_numpy(np.concatenate(vectors)), computed=0), settings


def read_stored_shard(path: Path, settings: CollectionSettings) -> tuple[list[Picture], np.ndarray]:
    """Return the pictures of a shard and their vectors, (N, P) float32. Raises DataError as `read_embeddings` does."""
    rows, vectors, space = read_shard(path)
    if (space.fingerprint, space.preprocessing) != (settings.fingerprint, settings.preprocessing):
        raise DataError(f"{path} holds vectors of another model or preprocessing than {ABOUT} beside it says")
    return [_picture(row) for row in rows], vectors


def _picture(row: ShardRow) -> Picture:
    own = PicturePrompt(
        text=row.prompt or "",
        negative=row.negative_prompt or "",
        source=row.prompt_source or "",
        reason="" if row.prompt else "it has no prompt",
    )
    return Picture(
        path=Path(row.path),
        width=row.width,
        height=row.height,
        share_seen=row.share_seen,
        modified=row.modified,
        content=bytes.fromhex(row.content),
        prompt=own,
    )
