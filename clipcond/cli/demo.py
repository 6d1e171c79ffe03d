"""`clipcond demo`: the whole story on the embedded model, told by one HTML page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipcond.cli.app import app
from clipcond.errors import DataError, OutputExists
from clipcond.files import write_file

if TYPE_CHECKING:
    from clipcond.diffusion.generate import Picture, Through
    from clipcond.mini.world import Scene
    from clipcond.pages.demo import Shot, Side, Story
    from clipcond.rerank.scorer import Scorer

_THROUGH: Mapping[Side, Through] = {"stock": "stock", "clipcond": "conditioner"}
MARKER = ".clipcond-demo.json"  # lists what a demo wrote into its folder


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")] = Path("clipcond-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Another number, other noise and another prompt.")] = 0,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=64, help="Pictures on either side.")] = 8,
    pipeline: Annotated[str, typer.Option(hidden=True)] = "mini",
    model: Annotated[str, typer.Option(hidden=True)] = "mini",
) -> None:
    """Show on the embedded model what clipcond does: count a prompt, make pictures with and without it, rank them.

    Takes less than a minute, needs no network, and ends in DIR/index.html, a page with everything inside.
    """
    from clipcond.cli.render import stdout_console
    from clipcond.pages.demo import page

    old = check_folder(out)
    told, pictures = _tell(demo_prompt(seed), seed=seed, count=count, pipeline=pipeline, model=model)
    write_folder(out, page(told), pictures, old)
    stdout_console().print(_summary(told, out / "index.html"), soft_wrap=True)


def demo_prompt(seed: int) -> str:
    """The prompt of a seed: seed 0 takes the first of the shipped ones."""
    from clipcond.resources import bundled

    lines = bundled("prompts", "demo.txt").read_text(encoding="utf-8").splitlines()
    prompts = [line for line in lines if line and not line.startswith("#")]
    return prompts[seed % len(prompts)]


def check_folder(out: Path) -> list[str]:
    """The files that an earlier demo wrote into `out`; empty for a new or an empty folder.

    Raises OutputExists when something else is there, so that nothing is computed in vain and nothing is overwritten.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return []
    if not out.is_dir():
        raise OutputExists(f"{out} is a file; name another folder with --out")
    try:
        names = json.loads((out / MARKER).read_text(encoding="utf-8"))["files"]
        inside = [name for name in names if (out / name).resolve().is_relative_to(out.resolve())]
    except (OSError, ValueError, KeyError, TypeError):
        raise OutputExists(
            f"{out} is there already and was not made by a demo; name another folder with --out, nothing is overwritten"
        ) from None
    return inside


def write_folder(out: Path, html: str, pictures: dict[str, Callable[[Path], None]], old: list[str]) -> None:
    """Write page and pictures; of what was there before, only the files of the earlier demo go.

    pictures: name within the folder -> what writes it.
    """
    for name in old:
        (out / name).unlink(missing_ok=True)
    names = ["index.html", *pictures]
    taken = [name for name in names if (out / name).exists()]
    if taken:
        raise OutputExists(f"{out / taken[0]} was not made by a demo; move it or name another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / MARKER, json.dumps({"files": names}), overwrite=True)
    for name, write in pictures.items():
        write(out / name)
    write_file(out / "index.html", html)


def _tell(
    prompt: str, *, seed: int, count: int, pipeline: str, model: str
) -> tuple[Story, dict[str, Callable[[Path], None]]]:
    """Count, make, judge and rank; the story, and what writes each of its pictures."""
    import random

    from clipcond._version import __version__
    from clipcond.mini import world
    from clipcond.pages.demo import Story
    from clipcond.prompt.plan import plan

    begun = time.perf_counter()
    (encoder,) = plan(prompt).encoders.values()
    if encoder.dropped is None:
        raise DataError(f"the demo's prompt has {encoder.content_tokens} tokens; expected more than {encoder.limit}")
    scene = world.parse(prompt)
    read = len(world.parse(prompt[: encoder.dropped.start]).objects)
    made, writers = _make(prompt, seed=seed, count=count, pipeline=pipeline)
    scorer = _scorer(model)
    shots = {side: _judge(side, pictures, scene, prompt, scorer) for side, pictures in made.items()}
    story = Story(
        prompt=prompt,
        plan=encoder,
        scene=scene,
        read=read,
        sketch=world.render(scene, random.Random(seed)),
        stock=shots["stock"],
        clipcond=shots["clipcond"],
        version=__version__,
        seconds=time.perf_counter() - begun,
    )
    return story, writers


def _make(
    prompt: str, *, seed: int, count: int, pipeline: str
) -> tuple[dict[Side, list[Picture]], dict[str, Callable[[Path], None]]]:
    """Pictures of the same seeds through the stock pipeline and through the Conditioner."""
    from functools import partial

    from clipcond.diffusion.generate import generate, settings_of
    from clipcond.diffusion.pipelines import advice, load_pipeline
    from clipcond.images.write import write_picture
    from clipcond.runtime.quiet import quiet_calls

    with _status("loading the model"):
        pipe = load_pipeline(pipeline)
    pipe.set_progress_bar_config(disable=True)
    made: dict[Side, list[Picture]] = {}
    writers: dict[str, Callable[[Path], None]] = {}
    total = 2 * count * advice(pipe).steps
    with quiet_calls(), _progress(total) as advance:
        for side, through in _THROUGH.items():
            pictures = list(generate(pipe, prompt, count=count, seed=seed, through=through, on_step=advance))
            made[side] = pictures
            for picture in pictures:
                settings = settings_of(pipe, picture, steps=None, guidance_scale=None, model=pipeline)
                name = f"{side}-{picture.seed}.png"
                writers[name] = partial(_write, write_picture, picture, prompt, settings)
    return made, writers


def _write(writer: Callable[..., None], picture: Picture, prompt: str, settings: dict[str, object], path: Path) -> None:
    writer(picture.image, path, prompt=prompt, settings=settings)


def _scorer(model: str) -> Scorer:
    from clipcond.rerank.scorer import Scorer

    with _status("ranking"):
        return Scorer.load(model)


def _judge(side: Side, pictures: list[Picture], scene: Scene, prompt: str, scorer: Scorer) -> tuple[Shot, ...]:
    from clipcond.mini import world
    from clipcond.pages.demo import Shot

    cosines = scorer.score([picture.image for picture in pictures], prompt).cosine
    return tuple(
        Shot(
            side=side,
            seed=picture.seed,
            image=picture.image,
            right=tuple(world.check(picture.image, scene)),
            cosine=float(cosine),
        )
        for picture, cosine in zip(pictures, cosines, strict=True)
    )


def _summary(story: Story, file: Path) -> str:
    from clipcond.pages.demo import mean_right

    objects = len(story.scene.objects)
    lost, chunks = story.plan.dropped, len(story.plan.chunks)
    dropped = f"{lost.content_tokens} tokens and {objects - story.read} of {objects} objects" if lost else "nothing"

    def side(shots: tuple[Shot, ...]) -> str:
        after = f"{mean_right(shots, story.read):.1f} of the {objects - story.read} behind the cut"
        return f"{mean_right(shots):.1f} of {objects} objects right on average, {after}"

    counter = f"{story.plan.content_tokens}/{story.plan.limit} tokens → {chunks} chunks"
    return "\n".join(
        (
            f"prompt    {counter}; a stock pipeline drops {dropped}",
            f"stock     {side(story.stock)}",
            f"clipcond  {side(story.clipcond)}",
            f"ranking   the best of clipcond's by score has {sum(story.best.right)} of {objects} right",
            f"page      {file}  ({story.seconds:.0f} s)",
        )
    )


def _status(what: str) -> AbstractContextManager[Any]:
    """A spinner on a terminal, nothing elsewhere."""
    from clipcond.cli.render import stderr_console

    console = stderr_console()
    return console.status(what) if console.is_terminal else nullcontext()


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar over `total` picture steps on a terminal; gives what advances it."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from clipcond.cli.render import stderr_console

    console = stderr_console()
    columns = (TextColumn("making pictures"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda moved: bar.advance(task, moved)
