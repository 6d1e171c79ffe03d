"""Pictures from a pipeline, written with their prompt and settings, and the best of them on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clipcond.errors import DataError, OptionsError, ResourceMissing
from clipcond.workflows.events import Event, Events, Note, ignore, task
from clipcond.workflows.prompt_options import PromptOptions, with_dialect

if TYPE_CHECKING:
    from clipcond.diffusion.compose_denoiser import Composition
    from clipcond.diffusion.conditioning import Conditioning
    from clipcond.rerank.ranking import RankedImage
    from clipcond.rerank.scorer import Scorer

REJECTED = "rejected"  # the folder, beside the pictures that are kept, for those that are not


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """A prompt, the pipeline that draws it, the number of pictures, and their folder.

    out: the folder for the pictures.   conditioning: a file of `encode` in place of a prompt; force: take one that other
    encoders made.   steps, guidance_scale: None is what the pipeline advises.   stock: leave the prompt to the pipeline.
    keep: rerank with `rerank_model` and move all but the best so many to `out/rejected`.
    dtype: `float32`, `float16` or `bfloat16`.   device: None is CUDA where there is one.
    Raises OptionsError for options that contradict one another.
    """

    out: Path
    prompt: PromptOptions = field(default_factory=PromptOptions)
    conditioning: Path | None = None
    force: bool = False
    pipeline: str = "mini"
    count: int = 8
    steps: int | None = None
    guidance_scale: float | None = None
    seed: int = 0
    stock: bool = False
    keep: int | None = None
    rerank_model: str = "mini"
    batch_size: int = 8
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str | None = None

    def __post_init__(self) -> None:
        if problem := problem_with(self):
            raise OptionsError(problem)

    @property
    def through(self) -> Literal["conditioner", "stock"]:
        """The reader of the prompt: the Conditioner or the pipeline itself."""
        return "stock" if self.stock else "conditioner"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPicture:
    """A picture file. `kept` is None where nothing was ranked; `error` says why a picture could not be scored."""

    path: Path
    seed: int
    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: float
    pipeline: str
    through: str
    score: float | None = None
    kept: bool | None = None
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the line of `clipcond generate`, in a fixed order; with a verdict only where one was asked for."""
        line: dict[str, object] = {
            "path": str(self.path),
            "seed": self.seed,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "pipeline": self.pipeline,
            "through": self.through,
        }
        if self.kept is not None:
            line |= {"score": self.score, "kept": self.kept}
        return line | ({} if self.error is None else {"error": self.error})


@dataclass(frozen=True, slots=True)
class PictureDone(Event):
    """A picture is in its file."""

    picture: WrittenPicture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Source:
    """The prompt as it is drawn: its conditioning (None where the pipeline reads the prompt), options and steps."""

    conditioning: Conditioning | Composition | None
    prompt: PromptOptions
    steps: int
    guidance_scale: float


def problem_with(options: GenerateOptions) -> str | None:
    """Say which options contradict one another, in words for the one who gave them; None when all is well."""
    prompt, keep = options.prompt, options.keep
    if options.conditioning is not None:
        if options.stock:
            return "--stock has no use for a --conditioning; leave one of them out"
        if given := "PROMPT" if prompt.prompt is not None else prompt.first_given():
            return f"--conditioning FILE says what {given} would; leave one of them out"
    elif prompt.prompt is None:
        return "give a PROMPT, or --conditioning FILE"
    elif options.force:
        return "--force is about a --conditioning FILE; leave it out"
    if options.stock and (given := prompt.first_given(apart_from=("negative_prompt", "clip_skip"))):
        return f"--stock leaves the prompt to the pipeline; leave out {given}"
    if keep is not None and keep > options.count:
        return f"--keep {keep} of --count {options.count} pictures"
    if keep is not None and options.conditioning is None and not prompt.text.strip():
        return "--keep needs a PROMPT to score the pictures by"
    return None


def run(options: GenerateOptions, events: Events = ignore) -> tuple[WrittenPicture, ...]:
    """Make the pictures and write each as a PNG, then rank and sort them out where `keep` says so, best first.

    Events: notes about the prompt, the steps of all pictures as one task, and a PictureDone for each file. The same
    options give the same bytes. Raises OutputExists when a file is in the way, ResourceMissing for a conditioning that is
    not there, OptionsError for steps other than those of its schedule, and what loading and drawing raise.
    """
    prompt = with_dialect(options.prompt, events)
    files = _files(options)
    if options.stock:
        _note_dropped(prompt, events)
    from clipcond.runtime.quiet import quiet_calls

    scorer = _scorer(options)  # both models before any work: a name that is not there costs no pictures
    pipe = _pipeline(options, events)
    with quiet_calls():
        source = _source(pipe, options, prompt, events)
        with task(events, "generating", options.count * source.steps, "steps") as on_step:
            pictures = []
            for picture in _write(pipe, source, options, files, on_step):
                events(PictureDone(picture))
                pictures.append(picture)
    if scorer is None or options.keep is None:
        return tuple(pictures)
    rows = _rank(pictures, source.prompt.dialect, scorer, options.keep)
    return tuple(_sort_out(pictures, rows, options.out / REJECTED))


def _files(options: GenerateOptions) -> list[Path]:
    """Return the files to write. Raises OutputExists before anything is computed, ResourceMissing for the conditioning."""
    from clipcond.images.write import destinations

    files = destinations(options.out, options.count, options.seed)
    if options.keep is not None:
        destinations(options.out / REJECTED, options.count, options.seed)
    if options.conditioning is not None and not options.conditioning.is_file():
        raise ResourceMissing(f"no conditioning at {options.conditioning}: there is no such file")
    return files


def _note_dropped(prompt: PromptOptions, events: Events) -> None:
    """Note the warnings about the prompts, and the text that a stock pipeline is about to lose."""
    from clipcond.prompt.plan import plan

    for name, text in (("prompt", prompt.text), ("negative prompt", prompt.negative_prompt or "")):
        planned = plan(text)
        for found in planned.warnings:
            events(Note(f"{name}: {found.message}"))
        (encoder,) = planned.encoders.values()
        if encoder.dropped is not None:
            reads = f"{encoder.limit} of {encoder.content_tokens} tokens"
            events(Note(f"{name}: the stock pipeline reads {reads} and drops “{encoder.dropped.text}”"))


def _scorer(options: GenerateOptions) -> Scorer | None:
    if options.keep is None:
        return None
    from clipcond.rerank.scorer import Scorer

    return Scorer.load(options.rerank_model, device=options.device)


def _pipeline(options: GenerateOptions, events: Events) -> Any:
    import torch

    from clipcond.diffusion.pipelines import load_pipeline

    dtype = getattr(torch, options.dtype)
    pipe = load_pipeline(options.pipeline, dtype=dtype, device=options.device, on_note=lambda text: events(Note(text)))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _source(pipe: Any, options: GenerateOptions, prompt: PromptOptions, events: Events) -> _Source:
    """Condition the pipeline on the prompt, or load what the file holds; with the steps and guidance to draw with."""
    from clipcond.diffusion.pipelines import advice
    from clipcond.workflows.conditioning import condition

    advised = advice(pipe)
    steps = advised.steps if options.steps is None else options.steps
    guidance_scale = advised.guidance_scale if options.guidance_scale is None else options.guidance_scale
    made: Conditioning | Composition | None = None
    if options.conditioning is not None:
        made, prompt = _load(pipe, options.conditioning, force=options.force)
        steps = _steps_of(made, options.conditioning, given=options.steps, otherwise=steps)
    elif not options.stock:
        made = condition(pipe, prompt, steps, events)
    return _Source(conditioning=made, prompt=prompt, steps=steps, guidance_scale=guidance_scale)


def _load(pipe: Any, file: Path, *, force: bool) -> tuple[Conditioning, PromptOptions]:
    """Load the conditioning of a file, and the options that it was made with."""
    from clipcond.diffusion.conditioning import Conditioning
    from clipcond.workflows.conditioning import prompt_options_of

    conditioning = Conditioning.load(file, pipe, force=force)
    if len(conditioning.plans) != 1:
        raise DataError(f"{file} is of {len(conditioning.plans)} prompts; give one of one prompt")
    return conditioning, prompt_options_of(conditioning)


def _steps_of(conditioning: Conditioning, file: Path, *, given: int | None, otherwise: int) -> int:
    """Return the steps for a conditioning: those of its schedule. Raises OptionsError where others are given."""
    if conditioning.callback is None:
        return otherwise
    own = conditioning.callback.timeline.steps
    if given not in (None, own):
        raise OptionsError(f"{file} was encoded for --steps {own}, not {given}; leave --steps out")
    return own


def _write(
    pipe: Any, source: _Source, options: GenerateOptions, files: Sequence[Path], on_step: Callable[[int], None]
) -> Iterator[WrittenPicture]:
    """Make the pictures, a batch at a time, and write each to its file."""
    from clipcond.diffusion.generate import generate, settings_of
    from clipcond.images.write import write_picture
    from clipcond.workflows.conditioning import infotext_settings

    text, negative = source.prompt.text, source.prompt.negative_prompt or ""
    made = generate(
        pipe,
        text,
        negative_prompt=negative,
        conditioning=source.conditioning,
        count=options.count,
        steps=source.steps,
        guidance_scale=source.guidance_scale,
        seed=options.seed,
        clip_skip=source.prompt.clip_skip,
        through=options.through,
        batch_size=options.batch_size,
        on_step=on_step,
    )
    for picture, file in zip(made, files, strict=True):
        settings = settings_of(
            pipe, picture, steps=source.steps, guidance_scale=source.guidance_scale, model=options.pipeline
        ) | infotext_settings(source.prompt)
        write_picture(picture.image, file, prompt=text, negative_prompt=negative, settings=settings)
        yield WrittenPicture(
            path=file,
            seed=picture.seed,
            prompt=text,
            negative_prompt=negative,
            steps=source.steps,
            guidance_scale=source.guidance_scale,
            pipeline=options.pipeline,
            through=options.through,
        )


def _rank(pictures: Sequence[WrittenPicture], dialect: str, scorer: Scorer, keep: int) -> Mapping[Path, RankedImage]:
    """Rank picture files by the words of their prompt, without the marks of its syntax; a row for each path."""
    from clipcond.prompt.dialects.translate import translate
    from clipcond.rerank.ranking import rerank

    words = translate(pictures[0].prompt, dialect, "plain").text.strip()
    files = [picture.path for picture in pictures]
    return {row.path: row for row in rerank(files, words, scorer=scorer, top=keep).rows}


def _sort_out(
    pictures: Sequence[WrittenPicture], rows: Mapping[Path, RankedImage], rejected: Path
) -> Iterator[WrittenPicture]:
    """Yield the pictures with score and verdict, best first; those that are not kept are moved, never deleted."""
    from clipcond.files import move_file

    for picture in sorted(pictures, key=lambda picture: rows[picture.path].rank or len(pictures) + 1):
        row, path = rows[picture.path], picture.path
        if row.error is not None:  # the file went away or was damaged meanwhile: it is not judged and stays
            yield replace(picture, kept=False, error=row.error)
            continue
        if not row.kept:
            rejected.mkdir(exist_ok=True)
            path = move_file(path, rejected / path.name)
        yield replace(picture, path=path, score=round(row.cosine or 0.0, 6), kept=row.kept)
