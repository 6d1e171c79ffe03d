"""Pictures from a pipeline, written with their prompt and settings, and the best of them on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipcond.errors import DataError, OptionsError
from clipcond.workflows.events import Event, Events, Note, ignore, task
from clipcond.workflows.generate_options import GenerateOptions as GenerateOptions
from clipcond.workflows.prompt_options import PromptOptions, note_file, with_dialect

if TYPE_CHECKING:
    from clipcond.diffusion.compose_denoiser import Composition
    from clipcond.diffusion.conditioning import Conditioning
    from clipcond.diffusion.counterfactual.steering import Steering
    from clipcond.diffusion.generate import Picture
    from clipcond.diffusion.regions import Region
    from clipcond.rerank.ranking import RankedImage
    from clipcond.rerank.scorer import Scorer
    from clipcond.workflows.picture_run import PictureRun


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPicture:
    """A picture file. others: `prompt_2` and `prompt_3`, where given.

    `kept` is None where nothing was ranked; `error` says why a picture could not be scored.
    """

    path: Path
    seed: int
    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: float
    pipeline: str
    through: str
    device: str
    others: Mapping[str, str] = field(default_factory=dict)
    score: float | None = None
    kept: bool | None = None
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the line of `clipcond generate`, in a fixed order; with what was not asked for left out."""
        line: dict[str, object] = {
            "path": str(self.path),
            "seed": self.seed,
            "prompt": self.prompt,
            **self.others,
            "negative_prompt": self.negative_prompt,
            "steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "pipeline": self.pipeline,
            "through": self.through,
            "device": self.device,
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
    """The prompt as it is drawn: its conditioning (None where the pipeline reads the prompt), options and steps.

    numbers: the pictures of it, in a row.   regions: those that the conditioning has.   replaced: new words by the phrases that
    they take the place of.
    """

    conditioning: Conditioning | Composition | Steering | None
    prompt: PromptOptions
    steps: int
    guidance_scale: float
    numbers: range
    regions: tuple[Region, ...] = ()
    replaced: Mapping[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        """The times that the pipeline draws each picture."""
        return 2 if getattr(self.conditioning, "phrases", 0) else 1

    @property
    def text(self) -> str:
        """The prompt that the picture shows: with the new words of a replacement."""
        if not self.replaced:
            return self.prompt.text
        from clipcond.diffusion.counterfactual.replaced_prompts import replaced_text

        return replaced_text(self.prompt.text, self.replaced)


def run(options: GenerateOptions, events: Events = ignore) -> tuple[WrittenPicture, ...]:
    """Make the pictures and write each as a PNG, then rank and sort them out where `keep` says so, best first.

    The same options give the same bytes, and go on with a run that was stopped. A folder that has pictures gets the next
    numbers. Events: notes about the prompt, the steps of all pictures as one task, and a PictureDone for each file.
    Raises OutputExists where the folder is a file, ResourceMissing for a file that is not there, OptionsError for steps
    other than those of a conditioning's schedule, and what loading and drawing raise.
    """
    from clipcond.workflows.generate_inputs import check_inputs, check_replaced, prompts_of, with_infotext, with_regions

    options = with_infotext(options, events)
    options, regions = with_regions(options)
    options = replace(options, prompt=with_dialect(options.prompt, events))
    note_file(options.prompt, f"--infotext {options.prompt.prompt} draws what is in it", events)
    check_inputs(options)
    from clipcond.workflows.picture_run import plan_run

    planned = plan_run(options)
    prompts = prompts_of(options, planned.seed, events)
    check_replaced(prompts, options)
    _note_run(planned, options, events)
    if options.stock:
        for prompt in dict.fromkeys(prompts):
            _note_dropped(prompt, events)
    from clipcond.runtime.quiet import quiet_calls

    scorer = _scorer(options, events)  # both models before any work: a name that is not there costs no pictures
    pipe = _pipeline(options, events)
    with quiet_calls():
        sources = list(_sources(pipe, options, prompts, regions, events))
        if options.adaptive:
            assert scorer is not None
            pictures = _draw_adaptively(pipe, sources[0], scorer, options, planned, events)
        else:
            pictures = _draw(pipe, sources, options, planned, events)
    if scorer is not None and options.keep is not None:
        rows = _rank(pictures, scorer, options.keep, events)
        pictures = list(_sort_out(pictures, rows, planned))
    planned.end()
    return tuple(pictures)


def _note_run(planned: PictureRun, options: GenerateOptions, events: Events) -> None:
    """Note the numbers and the seed where the folder has pictures, and runs that were not finished."""
    if planned.goes_on:
        done = options.count - len(planned.missing(range(options.count)))
        events(Note(f"goes on with the run that was stopped: {done} of {options.count} pictures are there"))
    elif planned.first:
        events(Note(f"{options.out} has pictures; these start at number {planned.first}, with seed {planned.seed}"))
    if planned.others:
        runs = "a run" if planned.others == 1 else f"{planned.others} runs"
        events(Note(f"{options.out} holds {runs} that was stopped; the same command as then finishes it"))


def _draw(
    pipe: Any, sources: Sequence[_Source], options: GenerateOptions, planned: PictureRun, events: Events
) -> list[WrittenPicture]:
    """Make the pictures that are missing; returns all of them, in order."""
    planned.begin()
    starts = [_start(source, planned, options.batch_size) for source in sources]
    total = sum(
        source.steps * source.runs * (source.numbers.stop - start)
        for source, start in zip(sources, starts, strict=True)
    )
    pictures = []
    with task(events, "generating", total, "steps") as on_step:
        for source, start in zip(sources, starts, strict=True):
            for picture in _write(pipe, source, start, options, planned, on_step):
                events(PictureDone(picture))
                pictures.append(picture)
    return pictures


def _draw_adaptively(
    pipe: Any, source: _Source, scorer: Scorer, options: GenerateOptions, planned: PictureRun, events: Events
) -> list[WrittenPicture]:
    """Draw the better candidates to the end, and write those that are missing; a note tells the rows that this saved."""
    from clipcond.diffusion.adaptive import generate_adaptively, moves
    from clipcond.diffusion.generate import prepared

    count, keep, text = options.count, options.keep or 1, _text_to_score(source)
    total = moves(count, keep, source.steps)  # before anything is written
    call = prepared(
        pipe,
        source.prompt.text,
        negative_prompt=source.prompt.negative_prompt or "",
        conditioning=source.conditioning,
        count=count,
        steps=source.steps,
        guidance_scale=source.guidance_scale,
        seed=planned.seed,
        dialect=source.prompt.dialect,
        clip_skip=source.prompt.clip_skip,
        through=options.through,
        batch_size=options.batch_size,
    )
    planned.begin()
    with task(events, "generating", total, "steps") as on_step:
        made = generate_adaptively(
            pipe,
            call,
            lambda images: scorer.score(images, text).cosine.tolist(),
            count=count,
            keep=keep,
            seed=planned.seed,
            batch_size=options.batch_size,
            on_step=on_step,
        )
    pictures = [_written(pipe, source, picture, options, planned) for picture in made.pictures]
    for picture in pictures:
        events(PictureDone(picture))
    saved = made.whole - made.spent
    left = f"{made.left[0]} after a third of the steps, {made.left[1]} after two thirds"
    rows = f"{made.spent:,} rows of the denoiser, {saved:,} saved of {made.whole:,} ({saved / made.whole:.0%})"
    events(Note(f"{count} candidates, {left}: {rows}"))
    return pictures


def _text_to_score(source: _Source) -> str:
    """The text that the source's pictures will be ranked by."""
    from clipcond.prompt.infotext import Infotext
    from clipcond.rerank.picture_prompt import text_to_score
    from clipcond.workflows.conditioning import infotext_settings

    settings = {name: str(each) for name, each in infotext_settings(source.prompt, source.regions).items()}
    return text_to_score(Infotext(source.prompt.text, "", settings))


def _start(source: _Source, planned: PictureRun, batch_size: int) -> int:
    """Return the picture to draw from: the first of the batch that the first missing one is in."""
    missing = planned.missing(source.numbers)
    if not missing:
        return source.numbers.stop
    done = missing[0] - source.numbers.start
    return source.numbers.start + done // batch_size * batch_size


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


def _scorer(options: GenerateOptions, events: Events) -> Scorer | None:
    if options.keep is None:
        return None
    from clipcond.rerank.scorer import Scorer

    with task(events, f"loading {options.rerank_model}"):
        return Scorer.load(options.rerank_model, device=options.device)


def _pipeline(options: GenerateOptions, events: Events) -> Any:
    with task(events, f"loading {options.pipeline}"):
        import torch

        from clipcond.diffusion.pipelines import load_pipeline

        dtype = getattr(torch, options.dtype)
        pipe = load_pipeline(
            options.pipeline, dtype=dtype, device=options.device, on_note=lambda text: events(Note(text))
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _sources(
    pipe: Any,
    options: GenerateOptions,
    prompts: Sequence[PromptOptions],
    regions: tuple[Region, ...],
    events: Events,
) -> Iterator[_Source]:
    """Yield the prompts as they are drawn, each with its pictures; neighbours of one prompt are drawn together."""
    start = 0
    for prompt, same in groupby(prompts):
        numbers = range(start, start + sum(1 for _ in same))
        start = numbers.stop
        yield _source(pipe, options, prompt, regions, numbers, events)


def _source(
    pipe: Any,
    options: GenerateOptions,
    prompt: PromptOptions,
    regions: tuple[Region, ...],
    numbers: range,
    events: Events,
) -> _Source:
    """Condition the pipeline on the prompt, or load what the file holds; with the steps and guidance to draw with."""
    from clipcond.diffusion.pipelines import advice
    from clipcond.workflows.conditioning import condition, condition_regions, note_unseen
    from clipcond.workflows.regions_file import with_all_texts

    advised = advice(pipe)
    steps = advised.steps if options.steps is None else options.steps
    guidance_scale = advised.guidance_scale if options.guidance_scale is None else options.guidance_scale
    made: Conditioning | Composition | Steering | None = None
    if options.conditioning is not None:
        made, prompt = _load(pipe, options.conditioning, force=options.force)
        steps = _steps_of(made, options.conditioning, given=options.steps, otherwise=steps)
    elif regions:
        made = condition_regions(pipe, prompt, regions, steps, events)
    elif not options.stock:
        made = condition(pipe, prompt, steps, events, replaced=options.replacements)
    note_unseen(pipe, with_all_texts(prompt, regions), options.pipeline, events)
    return _Source(
        conditioning=made,
        prompt=prompt,
        steps=steps,
        guidance_scale=guidance_scale,
        numbers=numbers,
        regions=regions,
        replaced=options.replacements,
    )


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
    pipe: Any,
    source: _Source,
    start: int,
    options: GenerateOptions,
    planned: PictureRun,
    on_step: Callable[[int], None],
) -> Iterator[WrittenPicture]:
    """Make the pictures of a prompt from number `start` on, a batch at a time, and write those that are missing."""
    from clipcond.diffusion.generate import generate

    text, negative = source.text, source.prompt.negative_prompt or ""
    for number in range(source.numbers.start, start):
        yield _picture(pipe, source, number, options, planned)
    if start == source.numbers.stop:
        return
    made = generate(
        pipe,
        text,
        negative_prompt=negative,
        conditioning=source.conditioning,
        count=source.numbers.stop - start,
        steps=source.steps,
        guidance_scale=source.guidance_scale,
        seed=planned.seed + start,
        clip_skip=source.prompt.clip_skip,
        through=options.through,
        batch_size=options.batch_size,
        on_step=on_step,
    )
    for picture in made:
        yield _written(pipe, source, replace(picture, index=start + picture.index), options, planned)


def _written(
    pipe: Any, source: _Source, picture: Picture, options: GenerateOptions, planned: PictureRun
) -> WrittenPicture:
    """Write a picture, of the number that its index is, unless its file is there."""
    from clipcond.diffusion.generate import settings_of
    from clipcond.images.write import write_picture
    from clipcond.workflows.conditioning import infotext_settings

    if planned.place(picture.index) is None:
        settings = settings_of(
            pipe, picture, steps=source.steps, guidance_scale=source.guidance_scale, model=options.pipeline
        ) | infotext_settings(source.prompt, source.regions, source.replaced)
        write_picture(
            picture.image,
            planned.files[picture.index],
            prompt=source.text,
            negative_prompt=source.prompt.negative_prompt or "",
            settings=settings,
        )
    return _picture(pipe, source, picture.index, options, planned)


def _picture(pipe: Any, source: _Source, number: int, options: GenerateOptions, planned: PictureRun) -> WrittenPicture:
    return WrittenPicture(
        path=planned.place(number) or planned.files[number],
        seed=planned.seed + number,
        prompt=source.text,
        negative_prompt=source.prompt.negative_prompt or "",
        steps=source.steps,
        guidance_scale=source.guidance_scale,
        pipeline=options.pipeline,
        through=options.through,
        device=str(pipe.device),
        others=source.prompt.others,
    )


def _rank(pictures: Sequence[WrittenPicture], scorer: Scorer, keep: int, events: Events) -> Mapping[Path, RankedImage]:
    """Rank picture files, each by its own prompt as `clipcond rerank` reads it from the file; a row for each path."""
    from clipcond.rerank.ranking import rerank

    files = [picture.path for picture in pictures]
    with task(events, "scoring", len(files), "pictures") as advance:
        ranking = rerank(files, None, scorer=scorer, top=keep, on_progress=advance)
    return {row.path: row for row in ranking.rows}


def _sort_out(
    pictures: Sequence[WrittenPicture], rows: Mapping[Path, RankedImage], planned: PictureRun
) -> Iterator[WrittenPicture]:
    """Yield the pictures with score and verdict, best first; those that are not kept are moved, never deleted.

    A picture that an earlier run moved, and that is kept after all, comes back.
    """
    from clipcond.files import move_file

    for picture in sorted(pictures, key=lambda picture: rows[picture.path].rank or len(pictures) + 1):
        row, path = rows[picture.path], picture.path
        if row.error is not None:  # the file went away or was damaged meanwhile: it is not judged and stays
            yield replace(picture, kept=False, error=row.error)
            continue
        folder = planned.folder if row.kept else planned.rejected
        if path.parent != folder:
            folder.mkdir(exist_ok=True)
            path = move_file(path, folder / path.name)
        yield replace(picture, path=path, score=round(row.cosine or 0.0, 6), kept=row.kept)
