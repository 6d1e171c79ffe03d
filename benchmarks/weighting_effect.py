"""What a weight does to a picture: how often a phrase's object appears as the weight of its phrase goes from −1 to 2.

    python benchmarks/weighting_effect.py           # 50 minutes on one thread of a busy machine
    python benchmarks/weighting_effect.py --scenes 32 --weighting comfy --weighting compel --weights 0 1.5
    python benchmarks/weighting_effect.py --only replaced

Captions of four objects for the embedded model, one phrase in brackets of a weight, the same scenes and the same noise
for every weighting and weight; `clipcond.mini.world.check` judges from pixels whether the object stands at its place, and
the pixels outside of its cell are compared with those of weight 1. `values` and `negpip` are in `attention_values.py`.
`replaced`: the object's phrase is replaced by that of another object in the same place (`clipcond.replace`).
Prints Markdown tables and draws docs/images/weighting_effect.svg (`pip install clipcond[bench]`).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attention_values import negated, own_values, valued  # beside this file
from PIL import Image

import clipcond
from clipcond.diffusion.counterfactual.drawing import draw_steered
from clipcond.encode.rows import TokenSequence
from clipcond.encode.text import TextTower
from clipcond.mini import world
from clipcond.prompt.plan import plan
from clipcond.prompt.tokenizer import BOS, CONTENT, CONTEXT, EOS, token_ids
from clipcond.score.thresholds import wilson

WEIGHTS = (-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
WEIGHTINGS = ("a1111", "no_norm", "comfy", "comfy_pp", "compel", "sd_embed", "values", "negpip", "counterfactual")
OBJECTS, BATCH, TARGET = 4, 16, 0.10
# which rows `kept` exchanges: the phrase's own (p), the words behind it (w), EOS and padding (e)
EXCHANGED = {
    "none": "", "the phrase's own": "p", "its own, EOS and padding": "pe", "its own and those of the words behind it": "pw",
    "all but those before it": "pwe",
}  # fmt: skip
PLOT = Path(__file__).resolve().parents[1] / "docs" / "images" / "weighting_effect.svg"
# Okabe and Ito's colours, which colour-blind readers can tell apart; markers tell the lines apart without them
STYLE = {
    "a1111": ("#E69F00", "o"), "no_norm": ("#000000", "s"), "comfy": ("#0072B2", "^"),
    "comfy_pp": ("#CC79A7", "D"), "compel": ("#009E73", "v"), "sd_embed": ("#D55E00", "x"),
    "values": ("#56B4E9", "P"), "negpip": ("#F0E442", "*"), "counterfactual": ("#882255", "h"),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A scene, its caption, and the phrase caption[start:end] that names object `at`."""

    scene: world.Scene
    caption: str
    at: int
    start: int
    end: int

    @property
    def words(self) -> str:
        """The phrase that names the object."""
        return self.caption[self.start : self.end]

    def weighted(self, weight: float) -> str:
        """The caption in A1111's dialect, the phrase at a weight; at 1 without brackets."""
        if weight == 1:
            return self.caption
        before, phrase, after = (
            self.caption[: self.start],
            self.caption[self.start : self.end],
            self.caption[self.end :],
        )
        return f"{before}({phrase}:{weight:g}){after}"


@dataclass(frozen=True)
class Verdicts:
    """Per scene whether the weighted object is right, and over all scenes how many of the others are.

    moved: the mean absolute difference of pixels outside of the object's cell from the picture of weight 1, of 255.
    """

    weighted: tuple[bool, ...]
    others_right: int
    others: int
    moved: float = 0.0


def cases(count: int, seed: str) -> list[Case]:
    """Held-out scenes of four objects whose caption fits one chunk; which of the four is weighted goes round."""
    rng, found = random.Random(seed), list[Case]()
    while len(found) < count:
        scene = world.sample(rng, least=OBJECTS, most=OBJECTS)
        caption = world.caption(scene, rng, ("terse", "plain")[len(found) // OBJECTS % 2])
        at = len(found) % OBJECTS
        if len(token_ids(caption)) <= CONTENT:
            found.append(Case(scene, caption, at, *phrase(caption, scene, at)))
    return found


def phrase(caption: str, scene: world.Scene, at: int) -> tuple[int, int]:
    """The span of whole words that names object `at`: its colour, shape and place, and the small words before them."""
    words = [match.span() for match in re.finditer(r"[\w-]+", caption)]
    end = next(end for _, end in words if len(world.parse(caption[:end]).objects) > at)
    start = max(
        start for start, _ in words if start < end and scene.objects[at] in world.parse(caption[start:end]).objects
    )
    before = re.search(r"(?:\b(?:a|an|at|in|the|very)\s+)+$", caption[:start])
    return (before.start() if before else start), end


def painted(
    pipe: Any, conditioner: Any, chosen: Sequence[Case], weighting: str, weight: float, how: dict[str, Any]
) -> list[Image.Image]:
    """One picture a case."""
    images: list[Image.Image] = []
    for first in range(0, len(chosen), BATCH):
        some = chosen[first : first + BATCH]
        prompts = [case.weighted(weight) for case in some]
        noise = [torch.Generator().manual_seed(first + number) for number in range(len(some))]
        given = {**how, "generator": noise}
        if weighting == "counterfactual":
            images += draw_steered(pipe, conditioner.counterfactual(prompts, dialect="a1111"), **given).images
        elif weighting == "values":
            asked = conditioner(prompts, dialect="a1111", weighting="none").kwargs
            with valued(pipe.unet, *own_values(prompts, asked["prompt_embeds"].shape[1])):
                images += pipe(**asked, **given).images
        elif weighting == "negpip":
            captions, phrases = [case.caption for case in some], [case.words for case in some]
            positive, negative, *rest = negated(conditioner, captions, phrases, weight)
            with valued(pipe.unet, *rest):
                images += pipe(prompt_embeds=positive, negative_prompt_embeds=negative, **given).images
        else:
            images += pipe(**conditioner(prompts, dialect="a1111", weighting=weighting).kwargs, **given).images
    return images


def judged(chosen: Sequence[Case], images: Sequence[Image.Image], plain: Sequence[Image.Image]) -> Verdicts:
    """plain: the pictures of weight 1."""
    weighted, right, others, moved = list[bool](), 0, 0, list[float]()
    for case, image, before in zip(chosen, images, plain, strict=True):
        verdicts = world.check(image, case.scene)
        weighted.append(verdicts.pop(case.at))
        right, others = right + sum(verdicts), others + len(verdicts)
        moved.append(outside(image, before, case.scene.objects[case.at].cell))
    return Verdicts(tuple(weighted), right, others, sum(moved) / len(moved))


def outside(image: Image.Image, before: Image.Image, cell: str) -> float:
    """The mean absolute difference of the pixels of two pictures outside of a cell."""
    away = np.abs(np.asarray(image, dtype=float) - np.asarray(before, dtype=float)).mean(axis=-1)
    row, column = divmod(world.CELLS.index(cell), world.GRID)
    edges = [round(world.SIZE * number / world.GRID) for number in range(world.GRID + 1)]
    elsewhere = np.ones_like(away, dtype=bool)
    elsewhere[edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = False
    return float(away[elsewhere].mean())


def replaced(pipe: Any, conditioner: Any, chosen: Sequence[Case], how: dict[str, Any], seed: str) -> list[str]:
    """Each case's object becomes another one, in the same place: how many stand there, and what happens to the rest."""
    rng = random.Random(f"{seed}/replaced")
    pairs = [another(case, rng) for case in chosen]
    scenes = [scene for scene, _ in pairs]
    after: list[Image.Image] = []
    anew: list[Image.Image] = []
    before: list[Image.Image] = []
    for first in range(0, len(chosen), BATCH):
        some = range(first, min(first + BATCH, len(chosen)))
        for number in some:  # the words differ from case to case, and so does the mapping
            case, (_, words) = chosen[number], pairs[number]
            steering = conditioner.counterfactual(case.caption, replace={case.words: words})
            drawn = draw_steered(pipe, steering, **how, generator=torch.Generator().manual_seed(number))
            after += drawn.images
            before += drawn.before
        texts = [chosen[n].caption.replace(chosen[n].words, pairs[n][1]) for n in some]
        noise = [torch.Generator().manual_seed(n) for n in some]
        anew += pipe(**conditioner(texts).kwargs, **how, generator=noise).images
    rows = ["| the new words | new object right | other objects right | moved elsewhere |", "|---|---|---|---|"]
    moved = [replace(case, scene=scene) for case, scene in zip(chosen, scenes, strict=True)]
    for name, images in (("`clipcond.replace`", after), ("the new prompt, the same noise", anew)):
        found = judged(moved, images, before)
        right = shown(sum(found.weighted), len(moved))
        rows.append(f"| {name} | {right} | {shown(found.others_right, found.others)} | {found.moved:.3f} |")
    return rows


def another(case: Case, rng: random.Random) -> tuple[world.Scene, str]:
    """The scene with another object in the place of the weighted one, and the words for it."""
    old = case.scene.objects[case.at]
    colour = rng.choice([each for each in world.COLOURS if each != old.colour])
    shape = rng.choice([each for each in world.LAYOUTS if each != old.shape])
    objects = list(case.scene.objects)
    objects[case.at] = replace(old, colour=colour, shape=shape)
    return replace(case.scene, objects=tuple(objects)), f"a {colour} {shape} at the {old.cell}"


def kept(pipe: Any, chosen: Sequence[Case], how: dict[str, Any]) -> list[str]:
    """Where the states keep an object: rows of the plain encoding are exchanged for those with its phrase masked."""
    tower, pad = TextTower.from_transformers(pipe.text_encoder), pipe.tokenizer.pad_token_id
    rows = [
        "| rows that have not seen the phrase | pictures that show its object | the other objects |",
        "|---|---|---|",
    ]
    for name, exchanged in EXCHANGED.items():
        own, right, others = 0, 0, 0
        for first in range(0, len(chosen), BATCH):
            some = chosen[first : first + BATCH]
            chunks = [plan(case.weighted(0), dialect="a1111").encoders["clip_l"].chunks[0] for case in some]
            where = [[at for at, token in enumerate(chunk.tokens, start=1) if token.weight == 0] for chunk in chunks]
            plain = [TokenSequence(tuple(chunk.ids(pad))) for chunk in chunks]
            masked = [TokenSequence(row.ids, tuple(hidden)) for row, hidden in zip(plain, where, strict=True)]
            empty = (
                TokenSequence((BOS, *[EOS] * (CONTEXT - 1)))
                if pad == EOS
                else TokenSequence((BOS, EOS, *[pad] * (CONTEXT - 2)))
            )
            states, without, negative = (
                tower.encode_rows(side).hidden for side in (plain, masked, [empty] * len(some))
            )
            for number, (hidden, chunk) in enumerate(zip(where, chunks, strict=True)):
                behind = range(hidden[-1] + 1, 1 + len(chunk.tokens))
                end = range(1 + len(chunk.tokens), CONTEXT)
                taken = [
                    at
                    for part, places in (("p", hidden), ("w", behind), ("e", end))
                    if part in exchanged
                    for at in places
                ]
                states[number, taken] = without[number, taken]
            noise = [torch.Generator().manual_seed(first + number) for number in range(len(some))]
            images = pipe(prompt_embeds=states, negative_prompt_embeds=negative, **how, generator=noise).images
            for case, image in zip(some, images, strict=True):
                verdicts = world.check(image, case.scene)
                own += verdicts.pop(case.at)
                right, others = right + sum(verdicts), others + len(verdicts)
        rows.append(f"| {name} | {shown(own, len(chosen))} | {shown(right, others)} |")
    return rows


def shown(right: int, seen: int) -> str:
    share = wilson(right, seen)
    return f"{100 * share.value:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}] ({right})"


Results = dict[str, dict[float, Verdicts]]  # by weighting and weight


def table(results: Results, cell: Callable[[Verdicts], str]) -> list[str]:
    """One row per weighting, one column per weight."""
    weights = sorted({weight for cells in results.values() for weight in cells})
    rows = [
        "| weighting | " + " | ".join(f"{weight:g}" for weight in weights) + " |",
        "|---" * (len(weights) + 1) + "|",
    ]
    for name, cells in results.items():
        said = (cell(cells[weight]) if weight in cells else "–" for weight in weights)
        rows.append(f"| `{name}` | " + " | ".join(said) + " |")
    return rows


def verdict(name: str, cells: dict[float, Verdicts]) -> str:
    """Whether the targets are met: at most 10 % at weight 0, and rising, each weight against the one before.

    A fall comes with the sign test over the scenes that changed.
    """
    falls = []
    for (_, before), (weight, after) in pairwise(sorted(cells.items())):
        lost = sum(a and not b for a, b in zip(before.weighted, after.weighted, strict=True))
        gained = sum(b and not a for a, b in zip(before.weighted, after.weighted, strict=True))
        if lost > gained:
            falls.append(
                f"{gained - lost} at {weight:g} ({lost} lost, {gained} won; p = {sign_test(lost, gained):.2g})"
            )
    first = "–"
    if 0 in cells:
        share = sum(cells[0].weighted) / len(cells[0].weighted)
        first = f"{'met' if share <= TARGET else 'missed'} ({100 * share:.0f} %)"
    flat = len({sum(cell.weighted) for cell in cells.values()}) == 1
    second = "missed: " + ", ".join(falls) if falls else "flat" if flat else "met"
    return f"| `{name}` | {first} | {second} |"


def sign_test(lost: int, gained: int) -> float:
    """The two-sided probability of so uneven a split of scenes that changed, if both ways were as likely."""
    changed = lost + gained
    return min(1.0, 2 * sum(comb(changed, k) for k in range(min(lost, gained) + 1)) / 2**changed)


def draw(results: Results, seen: int, file: Path) -> None:
    """One line per weighting, with its interval."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    mpl.rcParams.update({"svg.hashsalt": "clipcond", "svg.fonttype": "path", "font.size": 11})
    figure, axes = pyplot.subplots(figsize=(8.4, 4.8), facecolor="white")
    for number, (name, cells) in enumerate(results.items()):
        colour, marker = STYLE[name]
        shares = [100 * sum(cell.weighted) / seen for _, cell in sorted(cells.items())]
        bounds = [wilson(sum(cell.weighted), seen) for _, cell in sorted(cells.items())]
        errors = [
            [share - 100 * bound.low for share, bound in zip(shares, bounds, strict=True)],
            [100 * bound.high - share for share, bound in zip(shares, bounds, strict=True)],
        ]
        places = [
            weight + 0.014 * (number - (len(results) - 1) / 2) for weight in sorted(cells)
        ]  # intervals beside each other
        axes.errorbar(
            places, shares, errors, color=colour, marker=marker, label=name, linewidth=1.6, elinewidth=0.8, capsize=2
        )
    axes.axhline(100 * TARGET, color="#777777", linestyle=":", linewidth=1)
    axes.text(2.05, 100 * TARGET + 1.5, "target at weight 0: at most 10 %", color="#555555", fontsize=9, ha="right")
    axes.set(xlabel="weight of the phrase", ylabel="pictures that show its object (%)", xticks=WEIGHTS, ylim=(-3, 103))
    axes.set_title(f"One of four phrases weighted, {seen} pictures a point, 95 % intervals", fontsize=11)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="center right")
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, dpi=150)


class Store:
    """Verdicts in a JSON file, so that a run that was stopped goes on."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.known: dict[str, Any] = json.loads(file.read_text("utf-8")) if file is not None and file.is_file() else {}

    def verdicts(self, key: str, make: Callable[[], Verdicts]) -> Verdicts:
        if key not in self.known:
            self.known[key] = asdict(make())
            if self.file is not None:
                self.file.write_text(json.dumps(self.known), "utf-8")
        found = self.known[key]
        return Verdicts(tuple(found["weighted"]), found["others_right"], found["others"], found["moved"])


def weighted(
    pipe: Any, conditioner: Any, chosen: Sequence[Case], given: argparse.Namespace, how: dict[str, Any]
) -> Results:
    """The verdicts of all weightings that are asked for, at all weights that they have."""
    store = Store(given.store)
    plain: list[Image.Image] = []  # weight 1 is the same picture under every weighting

    def made(name: str, weight: float) -> Verdicts:
        if not plain:
            plain.extend(painted(pipe, conditioner, chosen, "none", 1.0, how))
        images = plain if weight == 1 else painted(pipe, conditioner, chosen, name, weight, how)
        return judged(chosen, images, plain)

    results: Results = {}
    for name in given.weighting or WEIGHTINGS:
        results[name] = {}
        for weight in given.weights:
            if name == "negpip" and weight >= 0:
                continue  # A1111's weights then
            key = f"{'plain' if weight == 1 else name} {weight:g}, {given.scenes} of {given.seed}, {given.steps} steps"
            results[name][weight] = store.verdicts(key, partial(made, name, weight))
        told(name)
    return results


def told(what: str) -> None:
    print(f"{what}: {time.perf_counter() - STARTED:.0f} s", file=sys.stderr, flush=True)


def say_weighted(results: Results, scenes: int) -> None:
    print(f"\nPictures that show the weighted object, of {scenes}, with Wilson's 95 % interval:\n")
    print("\n".join(table(results, lambda each: shown(sum(each.weighted), len(each.weighted)))))
    print(f"\nThe other three objects of each picture, of {3 * scenes}:\n")
    print("\n".join(table(results, lambda each: shown(each.others_right, each.others))))
    print(
        "\nThe mean absolute difference of pixels, of 255, outside of the object's cell from the picture of weight 1:\n"
    )
    print("\n".join(table(results, lambda each: f"{each.moved:.2f}")))
    print("\n| weighting | at weight 0 at most 10 % | rising with the weight |\n|---|---|---|")
    print("\n".join(verdict(name, cells) for name, cells in results.items()))


PARTS = ("weighted", "kept", "replaced")
STARTED = time.perf_counter()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scenes", type=int, default=80)
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--seed", default="weighting effect", help="names the held-out set")
    options.add_argument("--only", choices=PARTS, action="append")
    options.add_argument("--weighting", action="append", help=f"once or more; default {', '.join(WEIGHTINGS)}")
    options.add_argument("--weights", type=float, nargs="+", default=WEIGHTS)
    options.add_argument("--store", type=Path, help="a JSON file of what is measured; a run that was stopped goes on")
    options.add_argument(
        "--plot", type=Path, help=f"where the plot goes; default {PLOT.name} in docs/images, for all weightings"
    )
    given = options.parse_args()

    from clipcond.diffusion.pipelines import advice

    pipe = clipcond.load_pipeline("mini")
    pipe.set_progress_bar_config(disable=True)
    how = {"num_inference_steps": given.steps, "guidance_scale": advice(pipe).guidance_scale}
    conditioner = clipcond.Conditioner.from_pipeline(pipe)
    chosen = cases(given.scenes, given.seed)
    parts = given.only or PARTS
    results = weighted(pipe, conditioner, chosen, given, how) if "weighted" in parts else {}
    where = kept(pipe, chosen, how) if "kept" in parts else []
    if "replaced" in parts:
        swapped = replaced(pipe, conditioner, chosen, how, given.seed)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    print(
        f"{date.today()}, `{shlex.join(['python', *sys.argv])}`, {torch.get_num_threads()} threads, {versions},"
        f" {given.scenes} scenes, {given.steps} steps, guidance {how['guidance_scale']:g}, "
        f"{time.perf_counter() - STARTED:.0f} s."
    )
    if results:
        say_weighted(results, given.scenes)
    if where:
        print("\nWhere the object is kept: rows taken from the encoding in which nothing attends to the phrase.\n")
        print("\n".join(where))
    if "replaced" in parts:
        print("\nThe phrase replaced by that of another object in its place:\n")
        print("\n".join(swapped))
    if results and (given.plot or not given.weighting):
        draw(results, given.scenes, given.plot or PLOT)


if __name__ == "__main__":
    main()
