"""One shard of a collection embedded: what every worker does, in this process or on another machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from clipcond.encode.embedding_shards import ShardRow, ShardSpace, shard_bytes
from clipcond.encode.embedding_space import preprocessing_id
from clipcond.encode.fingerprint import Fingerprint
from clipcond.encode.image import ImageTower
from clipcond.encode.precision import cast_tower, dtype_of
from clipcond.images.remote import fetched, is_remote
from clipcond.models.load import load_dual
from clipcond.rerank.collection import Collection, CollectionSettings, EmbedJob, PictureError, Shard, check_agreement
from clipcond.rerank.embedding import Picture, embed_files
from clipcond.runtime.devices import device_of

_FETCHED = 64  # remote pictures at a time


class ShardEmbedder:
    """A model in memory that embeds shards, each as often as it is asked to, with the same rows every time."""

    def __init__(self, job: EmbedJob) -> None:
        """Load the model. Raises ModelError, and ConfigError where the folder holds vectors of another one."""
        device = device_of(job.device)
        dtype_of(job.precision, device)  # before a model is read
        dual = load_dual(job.model, device=str(device))
        self.job, self.tower = job, dual.image
        self.collection = Collection(job.folder)
        fingerprint = Fingerprint(dual.image.model)()
        self.notes = (*dual.notes, *cast_tower(dual.image, job.precision))
        preprocess = dual.image.preprocess if job.view is None else dual.image.preprocess.with_view(job.view)
        dual.image.preprocess = replace(preprocess, draft=job.draft)
        self.settings = CollectionSettings(
            model=job.model,
            fingerprint=fingerprint,
            preprocessing=preprocessing_id(dual.image.preprocess),
            precision=str(dual.image.dtype).removeprefix("torch."),
            view=job.view,
            draft=job.draft,
            stored=job.stored,
            width=_width(dual.image),
            shard_size=job.shard_size,
        )
        if (old := self.collection.settings()) is not None:
            check_agreement(old, asdict(self.settings), job.folder)

    def __call__(self, shard: Shard, on_progress: Callable[[int], object]) -> tuple[int, int]:
        """Embed a shard and put it in its place. Returns how many pictures it holds, and how many are errors."""
        rows: list[ShardRow] = []
        errors: list[PictureError] = []
        vectors = []
        for sources, paths in _stretches(shard.sources):
            found = embed_files(
                paths,
                self.tower,
                read_prompts=True,
                batch_size=self.job.batch_size,
                on_progress=on_progress,
                content_keys=True,
            )
            good = iter(found.vectors.numpy())
            for source, picture in zip(sources, found.pictures, strict=True):
                row, error = _row(source, picture)
                vector = None if picture.error is not None else next(good)
                if row is None or vector is None:
                    errors.append(PictureError(path=source, error=error))
                else:
                    rows.append(row)
                    vectors.append(vector)
        self.collection.write(
            shard.number, shard_bytes(rows, _stacked(vectors, self.settings.width), self._space), errors
        )
        return len(rows), len(errors)

    @property
    def _space(self) -> ShardSpace:
        settings = self.settings
        return ShardSpace(
            model=settings.model,
            fingerprint=settings.fingerprint,
            preprocessing=settings.preprocessing,
            computed=settings.precision,
            stored="float16" if settings.stored == "float16" else "float32",
            width=settings.width,
        )


def _width(tower: ImageTower) -> int:
    """P, found by encoding a black picture."""
    black = np.zeros((1, tower.preprocess.height, tower.preprocess.width, 3), dtype=np.uint8)
    return tower.embed_pixels(black).shape[1]


def _stretches(sources: Sequence[str]) -> Iterator[tuple[Sequence[str], Sequence[Path]]]:
    """The sources with paths to read them from: all at once where they are files, fetched some at a time where not."""
    if not any(map(is_remote, sources)):
        yield sources, list(map(Path, sources))
        return
    for at in range(0, len(sources), _FETCHED):
        some = sources[at : at + _FETCHED]
        with fetched(some) as paths:
            yield some, paths


def _row(source: str, picture: Picture) -> tuple[ShardRow | None, str]:
    """The row of a picture, or the reason why it has none."""
    if picture.error is not None:
        return None, picture.error
    if picture.content is None:
        return None, "changed while it was read"
    try:
        source.encode()
    except UnicodeEncodeError:
        return None, "its name is no UTF-8, which a Parquet file cannot hold; rename it"
    own = picture.prompt
    return ShardRow(
        path=source,
        content=picture.content.hex(),
        width=picture.width,
        height=picture.height,
        share_seen=picture.share_seen,
        modified=0.0 if is_remote(source) else picture.modified,
        prompt=own.text or None if own else None,
        negative_prompt=own.negative or None if own else None,
        prompt_source=own.source or None if own else None,
    ), ""


def _stacked(vectors: Sequence[np.ndarray], width: int) -> np.ndarray:
    return np.stack(vectors) if vectors else np.zeros((0, width), dtype=np.float32)
