"""The story that `clipcond demo` tells: one long prompt, pictures with and without clipcond, judged and ranked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clipcond.errors import DataError, OutputExists
from clipcond.files import write_file
from clipcond.workflows.events import Events, Note, ignore, task

if TYPE_CHECKING:
    from PIL import Image

    from clipcond.diffusion.generate import Picture, Through
    from clipcond.mini.world import Scene
    from clipcond.prompt.plan import EncoderPlan
    from clipcond.rerank.scorer import Scorer

Side = Literal["stock", "clipcond"]
PictureWriter = Callable[[Path], None]

MARKER = ".clipcond-demo.json"  # lists the files that a demo wrote into its folder
PAGE = "index.html"
_THROUGH: Mapping[Side, Through] = {"stock": "stock", "clipcond": "conditioner"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """out: the folder to write.   seed: of the first picture, and the number of the prompt.   count: pictures a side."""

    out: Path = Path("clipcond-demo")
    seed: int = 0
    count: int = 8
    pipeline: str = "mini"
    model: str = "mini"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shot:
    """One picture: its side and seed, the judge's verdict on each object, and its cosine to the whole prompt."""

    side: Side
    seed: int
    image: Image.Image
    right: tuple[bool, ...]
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Story:
    """All that the page tells. Both sides have as many pictures, of the same seeds in the same order."""

    prompt: str
    plan: EncoderPlan
    scene: Scene
    read: int  # objects of the scene that a stock pipeline reads; those after them are cut off
    sketch: Image.Image  # the scene of the prompt, drawn without a model
    stock: tuple[Shot, ...]
    clipcond: tuple[Shot, ...]
    version: str
    seconds: float

    @property
    def ranking(self) -> list[Shot]:
        """All pictures, the best score first."""
        return sorted((*self.stock, *self.clipcond), key=lambda shot: -shot.cosine)

    @property
    def best(self) -> Shot:
        """The picture of clipcond's that scores best."""
        return max(self.clipcond, key=lambda shot: shot.cosine)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demo:
    """A story, a writer for each of its pictures by file name, and the files of an earlier demo that they replace."""

    out: Path
    story: Story
    pictures: Mapping[str, PictureWriter]
    replaced: tuple[str, ...]


def mean_right(shots: Sequence[Shot], start: int = 0) -> float:
    """Return the number of objects from `start` on that are right, on average over pictures."""
    return sum(sum(shot.right[start:]) for shot in shots) / len(shots)


def run(options: DemoOptions, events: Events = ignore) -> Demo:
    """Count, make pictures of the same seeds both ways, judge and rank them; `write` then makes the folder.

    Raises OutputExists, before anything is computed, where the folder holds files that no demo wrote; ModelError.
    """
    replaced = check_folder(options.out)
    story, pictures = _tell(demo_prompt(options.seed), options, events)
    return Demo(out=options.out, story=story, pictures=pictures, replaced=replaced)


def demo_prompt(seed: int) -> str:
    """Return the prompt of a seed: seed 0 takes the first of the shipped ones."""
    from clipcond.resources import bundled

    lines = bundled("prompts", "demo.txt").read_text(encoding="utf-8").splitlines()
    prompts = [line for line in lines if line and not line.startswith("#")]
    return prompts[seed % len(prompts)]


def check_folder(out: Path) -> tuple[str, ...]:
    """Return the files that an earlier demo wrote into `out`; none for a new or an empty folder.

    Raises OutputExists when something else is there, so that nothing is computed in vain and nothing is overwritten.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return ()
    if not out.is_dir():
        raise OutputExists(f"{out} is a file; name another folder with --out")
    try:
        names = json.loads((out / MARKER).read_text(encoding="utf-8"))["files"]
        return tuple(name for name in names if (out / name).resolve().is_relative_to(out.resolve()))
    except (OSError, ValueError, KeyError, TypeError):
        raise OutputExists(
            f"{out} is there already and was not made by a demo; name another folder with --out, nothing is overwritten"
        ) from None


def write(demo: Demo, html: str) -> Path:
    """Write page and pictures, and remove the files of the earlier demo. Returns the path of the page.

    Raises OutputExists for a file of another's own.
    """
    write_folder(demo.out, html, demo.pictures, demo.replaced)
    return demo.out / PAGE


def write_folder(out: Path, html: str, pictures: Mapping[str, PictureWriter], replaced: Sequence[str]) -> None:
    """Write page and pictures; of the files that were there before, only those of the earlier demo go."""
    for name in replaced:
        (out / name).unlink(missing_ok=True)
    names = [PAGE, *pictures]
    taken = [name for name in names if (out / name).exists()]
    if taken:
        raise OutputExists(f"{out / taken[0]} was not made by a demo; move it or name another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / MARKER, json.dumps({"files": names}), overwrite=True)
    for name, write_picture in pictures.items():
        write_picture(out / name)
    write_file(out / PAGE, html)


def _tell(prompt: str, options: DemoOptions, events: Events) -> tuple[Story, Mapping[str, PictureWriter]]:
    """Return the story of a prompt, and a writer for each of its pictures."""
    import random

    from clipcond._version import __version__
    from clipcond.mini import world
    from clipcond.prompt.plan import plan

    begun = time.perf_counter()
    (encoder,) = plan(prompt).encoders.values()
    if encoder.dropped is None:
        raise DataError(f"the demo's prompt has {encoder.content_tokens} tokens; expected more than {encoder.limit}")
    scene = world.parse(prompt)
    made, writers = _make(prompt, options, events)
    scorer = _scorer(options.model, events)
    shots = {side: _judge(side, pictures, scene, prompt, scorer) for side, pictures in made.items()}
    story = Story(
        prompt=prompt,
        plan=encoder,
        scene=scene,
        read=len(world.parse(prompt[: encoder.dropped.start]).objects),
        sketch=world.render(scene, random.Random(options.seed)),
        stock=shots["stock"],
        clipcond=shots["clipcond"],
        version=__version__,
        seconds=time.perf_counter() - begun,
    )
    return story, writers


def _make(
    prompt: str, options: DemoOptions, events: Events
) -> tuple[Mapping[Side, Sequence[Picture]], Mapping[str, PictureWriter]]:
    """Make pictures of the same seeds through the stock pipeline and through the Conditioner."""
    from clipcond.diffusion.generate import generate, settings_of
    from clipcond.diffusion.pipelines import advice, load_pipeline
    from clipcond.images.write import write_picture
    from clipcond.runtime.quiet import quiet_calls

    with task(events, "loading the model"):
        pipe = load_pipeline(options.pipeline, on_note=lambda text: events(Note(text)))
    pipe.set_progress_bar_config(disable=True)
    made: dict[Side, Sequence[Picture]] = {}
    writers: dict[str, PictureWriter] = {}
    total = len(_THROUGH) * options.count * advice(pipe).steps
    with quiet_calls(), task(events, "making pictures", total, "steps") as on_step:
        for side, through in _THROUGH.items():
            pictures = generate(pipe, prompt, count=options.count, seed=options.seed, through=through, on_step=on_step)
            made[side] = list(pictures)
            for picture in made[side]:
                settings = settings_of(pipe, picture, steps=None, guidance_scale=None, model=options.pipeline)
                writer = partial(write_picture, picture.image, prompt=prompt, settings=settings)
                writers[f"{side}-{picture.seed}.png"] = writer
    return made, writers


def _scorer(model: str, events: Events) -> Scorer:
    from clipcond.rerank.scorer import Scorer

    with task(events, "ranking"):
        return Scorer.load(model)


def _judge(side: Side, pictures: Sequence[Picture], scene: Scene, prompt: str, scorer: Scorer) -> tuple[Shot, ...]:
    """Check each object of the scene in each picture, and score the picture by the whole prompt."""
    from clipcond.mini import world

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
