"""Embeddings of a whole collection of pictures, as Parquet files in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from clipcond.errors import ImageError, OptionsError
from clipcond.wording import visible
from clipcond.workflows.events import Events, Note, ignore, task
from clipcond.workflows.model_names import check_model

if TYPE_CHECKING:
    from clipcond.rerank.collection import Collection, CollectionSettings, EmbedJob, Shard

Engine = Literal["local", "ray"]
Stored = Literal["float32", "float16"]
Precision = Literal["fp32", "auto", "bf16", "fp16"]
View = Literal["crop", "pad", "tiles"]
LARGEST_SHARD = 100_000  # pictures: a shard's vectors are in memory while it is made


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """Pictures, the folder of their embeddings, and how they are made.

    sources: files, folders with all below them, tars, patterns, addresses of fsspec.   stored: the dtype in the files.
    device: None is CUDA where there is one.
    engine: this process, or Ray with `workers` of them, by default one for each GPU, or each CPU.
    Raises OptionsError for options that contradict one another or are out of range.
    """

    sources: tuple[str, ...]
    out: Path
    model: str = "mini"
    precision: Precision = "fp32"
    device: str | None = None
    view: View | None = None
    draft: bool = False
    stored: Stored = "float32"
    shard_size: int = 1024
    batch_size: int = 32
    engine: Engine = "local"
    workers: int | None = None

    def __post_init__(self) -> None:
        if problem := _problem(self):
            raise OptionsError(problem)

    def job(self) -> EmbedJob:
        """The part of the options that a worker needs."""
        from clipcond.rerank.collection import EmbedJob

        return EmbedJob(
            folder=Path(os.path.abspath(self.out)),  # noqa: PTH100 - links kept
            model=self.model,
            precision=self.precision,
            device=self.device,
            view=self.view,
            draft=self.draft,
            stored=self.stored,
            shard_size=self.shard_size,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReport:
    """A folder of embeddings after a run. new: pictures that this run embedded.   errors: pictures of all runs that have none."""

    folder: Path
    pictures: int
    new: int
    shards: int
    errors: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, object]:
        """The document of `clipcond embed --json`."""
        return {
            "folder": str(self.folder),
            "pictures": self.pictures,
            "new": self.new,
            "shards": self.shards,
            "errors": [{"path": path, "error": error} for path, error in self.errors],
        }


def _problem(options: EmbedOptions) -> str:
    if not options.sources:
        return "no pictures are named; give files, folders, tars, patterns or addresses"
    for name, value, choices in (
        ("--engine", options.engine, get_args(Engine)),
        ("--precision", options.precision, get_args(Precision)),
        ("--store", options.stored, get_args(Stored)),
        ("--view", options.view or "crop", get_args(View)),
    ):
        if value not in choices:
            return f"{name} is {visible(str(value))}; expected one of {', '.join(choices)}"
    if not 1 <= options.shard_size <= LARGEST_SHARD:
        return f"--shard-size is {options.shard_size:,}; expected 1 to {LARGEST_SHARD:,} pictures"
    if options.batch_size < 1:
        return f"--batch-size is {options.batch_size}; expected 1 or more"
    if options.workers is not None and options.engine != "ray":
        return "--workers is for --engine ray; this process decodes in as many threads as it has CPUs"
    if options.engine == "ray" and (options.device or "").startswith("cuda:"):
        return f"--device is {visible(str(options.device))}; with --engine ray each worker has a GPU of its own: cuda, or cpu"
    if options.workers is not None and options.workers < 1:
        return f"--workers is {options.workers}; expected 1 or more"
    return ""


def run(options: EmbedOptions, events: Events = ignore) -> EmbedReport:
    """Embed what is not in the folder yet; a run that was stopped goes on with the shards that it lacks.

    Pictures that came since then get shards of their own. Raises ImageError where no source has any picture, ModelError,
    ConfigError for a folder made with other options, OutputExists for one with other files, DataError for a damaged one.
    """
    from clipcond.encode.embedding_shards import check_pyarrow
    from clipcond.rerank.collection import Collection

    check_pyarrow()
    if options.engine == "ray":
        from clipcond.workflows.embed_ray import check_ray

        check_ray()
    check_model(options.model)
    job = options.job()
    collection = Collection(job.folder)
    old = collection.settings()
    if old is not None:
        _check_options(old, job, options.out)
    sources = _sources(options.sources, events)
    todo = [] if old is None else _todo(collection, job.shard_size)
    if old is None or todo or old.model != job.model or collection.lacks(sources):
        with task(events, f"loading {options.model}"):
            from clipcond.rerank.shards import ShardEmbedder

            embedder = ShardEmbedder(job)
        for note in embedder.notes:
            events(Note(note))
        if old is None:
            collection.begin(embedder.settings)
        added = collection.add(sources)
        if old is not None and added:
            events(Note(f"{added:,} pictures are new since the last run"))
        todo = _todo(collection, job.shard_size)
        with task(events, "embedding", sum(len(shard.sources) for shard in todo), "pictures") as advance:
            _embed(options, embedder, todo, advance)
    return _report(collection, job.shard_size, todo)


def _check_options(old: CollectionSettings, job: EmbedJob, out: Path) -> None:
    """Hold the options against those that a folder was made with, as far as they are known without the model."""
    from clipcond.rerank.collection import check_agreement

    dtypes = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    now: dict[str, object] = {"stored": job.stored, "view": job.view, "draft": job.draft, "shard_size": job.shard_size}
    if job.precision in dtypes:
        now["precision"] = dtypes[job.precision]
    check_agreement(old, now, out)


def _embed(
    options: EmbedOptions, embedder: Callable[..., object], todo: list[Shard], advance: Callable[[int], None]
) -> None:
    if options.engine == "ray":
        from clipcond.workflows.embed_ray import embed_with_ray

        embed_with_ray(options.job(), todo, options.workers, advance)
        return
    for shard in todo:
        embedder(shard, advance)


def _todo(collection: Collection, size: int) -> list[Shard]:
    return [shard for shard in collection.shards(size) if not collection.is_done(shard.number)]


def _report(collection: Collection, size: int, made: list[Shard]) -> EmbedReport:
    shards = collection.shards(size)
    errors = tuple((each.path, each.error) for each in collection.errors(shards))
    new = sum(len(shard.sources) for shard in made) - len(collection.errors(made))
    return EmbedReport(
        folder=collection.folder,
        pictures=sum(len(shard.sources) for shard in shards) - len(errors),
        new=new,
        shards=len(shards),
        errors=errors,
    )


def _sources(sources: Iterable[str], events: Events) -> list[str]:
    """Every picture that the sources stand for, each once, in their order: absolute paths and addresses. Raises ImageError."""
    from clipcond.images.find import find_pictures
    from clipcond.images.remote import is_remote, remote_pictures

    found: dict[str, None] = {}
    empty = []
    for source in sources:
        if is_remote(source):
            pictures = remote_pictures(source)
        elif not (os.path.lexists(Path(source).expanduser()) or any(mark in source for mark in "*?[{")):
            raise ImageError(f"{source}: there is no such file or folder")
        else:
            paths = find_pictures([source], recursive=True).paths
            pictures = [os.path.abspath(path) for path in paths]  # noqa: PTH100 - links kept
        if not pictures:
            empty.append(source)
        found.update(dict.fromkeys(pictures))
    if not found:
        raise ImageError(f"no pictures in {', '.join(empty)}")
    for source in empty:
        events(Note(f"no pictures in {source}"))
    return list(found)
