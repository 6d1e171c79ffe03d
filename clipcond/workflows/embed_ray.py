"""Shards embedded by workers of Ray, on this machine or a cluster that shares the folder of embeddings.

A worker is told a shard's number and writes the shard itself, whole or not at all, so that one that dies loses no more than
the shard that it was at, which Ray gives to another; a shard that is there already is not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from clipcond.errors import ClipCondError, ConfigError
from clipcond.rerank.collection import Collection, EmbedJob, Shard
from clipcond.wording import first_line


def check_ray() -> None:
    """Raise ConfigError where Ray is not installed."""
    _ray()


def embed_with_ray(job: EmbedJob, todo: Sequence[Shard], workers: int | None, advance: Callable[[int], None]) -> None:
    """Embed shards with Ray Data. workers: by default one for each GPU of the cluster, or each CPU; never more than shards.

    The cluster is that of RAY_ADDRESS, else this machine. Raises ConfigError for what Ray reports beyond a worker's death.
    """
    if not todo:
        return
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    try:
        gpus = 0 if job.device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
        count = workers or gpus or int(ray.cluster_resources().get("CPU", 1))
        _quiet(ray)
        rows = ray.data.from_items([{"shard": shard.number} for shard in todo], override_num_blocks=len(todo))
        done = rows.map_batches(
            ShardWorker,
            fn_constructor_args=(job,),
            batch_size=1,
            concurrency=min(count, len(todo)),
            num_cpus=1,
            num_gpus=1 if gpus else 0,
        )
        for row in done.iter_rows():
            advance(int(row["pictures"]))
    except ray.exceptions.RayError as error:
        if isinstance(cause := getattr(error, "cause", None), ClipCondError):
            raise cause from error
        raise ConfigError(f"Ray: {first_line(error)}") from error
    finally:
        if ours:
            ray.shutdown()


class ShardWorker:
    """A worker of Ray Data: a model in memory, and a shard for each row."""

    def __init__(self, job: EmbedJob) -> None:
        from clipcond.rerank.shards import ShardEmbedder

        self._embedder = ShardEmbedder(job)
        self._collection = Collection(job.folder)
        self._shards = self._collection.shards(job.shard_size)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """Embed the shards of these numbers, unless they are there. Returns how many pictures each has."""
        counts = []
        for number in batch["shard"]:
            shard = self._shards[int(number)]
            if not self._collection.is_done(shard.number):
                self._embedder(shard, _ignore)
            counts.append(len(shard.sources))
        return {"pictures": counts}


def _ignore(count: int) -> None:
    """A worker's progress is its finished shards."""


def _quiet(ray: Any) -> None:
    """Keep Ray Data's own bars off the terminal."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _ray() -> Any:
    try:
        ray = import_module("ray")
        import_module("ray.data")
    except ImportError as error:
        missing = first_line(error)
        raise ConfigError(f"--engine ray needs Ray Data ({missing}): pip install 'clipcond[ray]'") from error
    return ray
