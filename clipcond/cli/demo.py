"""`clipcond demo`: the whole story on the embedded model, told by one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.progress import progress
from clipcond.cli.render import stdout_console
from clipcond.workflows.demo import DemoOptions, Shot, Story, mean_right, run, write


@command
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")] = Path("clipcond-demo"),
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Another number, other noise and another prompt.")] = 0,
    count: Annotated[
        int, typer.Option("-n", "--count", metavar="N", min=1, max=64, help="Pictures on either side.")
    ] = 8,
    pipeline: Annotated[str, typer.Option(hidden=True)] = "mini",
    model: Annotated[str, typer.Option(hidden=True)] = "mini",
) -> None:
    """Show what clipcond does, on the embedded model.

    It counts a prompt, makes pictures with and without clipcond, and ranks them. Takes less than a minute, needs no
    network, and ends in DIR/index.html, a page with everything inside.
    """
    from clipcond.pages.demo import page

    with progress() as events:
        made = run(DemoOptions(out=out, seed=seed, count=count, pipeline=pipeline, model=model), events)
    file = write(made, page(made.story))
    stdout_console().print(_summary(made.story, file), soft_wrap=True)


def _summary(story: Story, file: Path) -> str:
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
