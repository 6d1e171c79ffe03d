"""What a weight does to a picture: how often a phrase's object appears as the weight of its phrase goes from 0 to 1.5.

    python benchmarks/weighting_effect.py           # 21 minutes on one thread of a busy machine
    python benchmarks/weighting_effect.py --scenes 32 --weighting comfy --weighting compel

Captions of four objects for the embedded model, one phrase in brackets of a weight, the same scenes and the same noise
for every weighting and weight; `clipcond.mini.world.check` judges from pixels whether the object stands at its place.
Prints Markdown tables and draws docs/images/weighting_effect.svg (`pip install clipcond[bench]`).
"""

from __future__ import annotations

import argparse
import random
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from itertools import pairwise
from math import comb
from pathlib import Path
from typing import Any

import torch

import clipcond
from clipcond.encode.rows import TokenSequence
from clipcond.encode.text import TextTower
from clipcond.mini import world
from clipcond.prompt.plan import plan
from clipcond.prompt.tokenizer import BOS, CONTENT, CONTEXT, EOS, token_ids
from clipcond.score.thresholds import wilson

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
WEIGHTINGS = ("a1111", "no_norm", "comfy", "comfy_pp", "compel", "sd_embed")
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
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A scene, its caption, and the phrase caption[start:end] that names object `at`."""

    scene: world.Scene
    caption: str
    at: int
    start: int
    end: int

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
    """Per scene whether the weighted object is right, and over all scenes how many of the others are."""

    weighted: tuple[bool, ...]
    others_right: int
    others: int


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
) -> Verdicts:
    """One picture a case, judged."""
    weighted, right, others = list[bool](), 0, 0
    for first in range(0, len(chosen), BATCH):
        some = chosen[first : first + BATCH]
        prompts = [case.weighted(weight) for case in some]
        asked = conditioner(prompts, dialect="a1111", weighting=weighting).kwargs
        noise = [torch.Generator().manual_seed(first + number) for number in range(len(some))]
        for case, image in zip(some, pipe(**asked, **how, generator=noise).images, strict=True):
            verdicts = world.check(image, case.scene)
            weighted.append(verdicts.pop(case.at))
            right, others = right + sum(verdicts), others + len(verdicts)
    return Verdicts(tuple(weighted), right, others)


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


def table(results: dict[str, list[Verdicts]], others: bool) -> list[str]:
    """One row per weighting, one column per weight."""
    rows = [
        "| weighting | " + " | ".join(f"{weight:g}" for weight in WEIGHTS) + " |",
        "|---" * (len(WEIGHTS) + 1) + "|",
    ]
    for name, cells in results.items():
        counts = [
            (cell.others_right, cell.others) if others else (sum(cell.weighted), len(cell.weighted)) for cell in cells
        ]
        rows.append(f"| `{name}` | " + " | ".join(shown(*count) for count in counts) + " |")
    return rows


def verdict(name: str, cells: Sequence[Verdicts]) -> str:
    """Whether the targets are met: at most 10 % at weight 0, and rising, each weight against the one before.

    A fall comes with the sign test over the scenes that changed.
    """
    share = sum(cells[0].weighted) / len(cells[0].weighted)
    falls = []
    for number, (before, after) in enumerate(pairwise(cells), start=1):
        lost = sum(a and not b for a, b in zip(before.weighted, after.weighted, strict=True))
        gained = sum(b and not a for a, b in zip(before.weighted, after.weighted, strict=True))
        if lost > gained:
            falls.append(
                f"{gained - lost} at {WEIGHTS[number]:g} ({lost} lost, {gained} won; p = {sign_test(lost, gained):.2g})"
            )
    first = "met" if share <= TARGET else "missed"
    flat = len({sum(cell.weighted) for cell in cells}) == 1
    second = "missed: " + ", ".join(falls) if falls else "flat" if flat else "met"
    return f"| `{name}` | {first} ({100 * share:.0f} %) | {second} |"


def sign_test(lost: int, gained: int) -> float:
    """The two-sided probability of so uneven a split of scenes that changed, if both ways were as likely."""
    changed = lost + gained
    return min(1.0, 2 * sum(comb(changed, k) for k in range(min(lost, gained) + 1)) / 2**changed)


def draw(results: dict[str, list[Verdicts]], seen: int, file: Path) -> None:
    """One line per weighting, with its interval."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    mpl.rcParams.update({"svg.hashsalt": "clipcond", "svg.fonttype": "path", "font.size": 11})
    figure, axes = pyplot.subplots(figsize=(7.6, 4.8), facecolor="white")
    for number, (name, cells) in enumerate(results.items()):
        colour, marker = STYLE.get(name, ("#555555", "*"))
        shares = [100 * sum(cell.weighted) / seen for cell in cells]
        bounds = [wilson(sum(cell.weighted), seen) for cell in cells]
        errors = [
            [share - 100 * bound.low for share, bound in zip(shares, bounds, strict=True)],
            [100 * bound.high - share for share, bound in zip(shares, bounds, strict=True)],
        ]
        places = [
            weight + 0.012 * (number - (len(results) - 1) / 2) for weight in WEIGHTS
        ]  # intervals beside each other
        axes.errorbar(
            places, shares, errors, color=colour, marker=marker, label=name, linewidth=1.6, elinewidth=0.8, capsize=2
        )
    axes.axhline(100 * TARGET, color="#777777", linestyle=":", linewidth=1)
    axes.text(1.53, 100 * TARGET + 1.5, "target at weight 0: at most 10 %", color="#555555", fontsize=9, ha="right")
    axes.set(xlabel="weight of the phrase", ylabel="pictures that show its object (%)", xticks=WEIGHTS, ylim=(-3, 103))
    axes.set_title(f"One of four phrases weighted, {seen} pictures a point, 95 % intervals", fontsize=11)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="center right")
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, dpi=150)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scenes", type=int, default=80)
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--seed", default="weighting effect", help="names the held-out set")
    options.add_argument("--weighting", action="append", help=f"once or more; default {', '.join(WEIGHTINGS)}")
    options.add_argument(
        "--plot", type=Path, help=f"where the plot goes; default {PLOT.name} in docs/images, for all weightings"
    )
    given = options.parse_args()

    from clipcond.diffusion.pipelines import advice

    started = time.perf_counter()
    pipe = clipcond.load_pipeline("mini")
    pipe.set_progress_bar_config(disable=True)
    how = {"num_inference_steps": given.steps, "guidance_scale": advice(pipe).guidance_scale}
    conditioner = clipcond.Conditioner.from_pipeline(pipe)
    chosen = cases(given.scenes, given.seed)
    plain = painted(pipe, conditioner, chosen, "none", 1.0, how)  # weight 1 is the same picture under every weighting
    results: dict[str, list[Verdicts]] = {}
    for name in given.weighting or WEIGHTINGS:
        results[name] = [
            plain if weight == 1 else painted(pipe, conditioner, chosen, name, weight, how) for weight in WEIGHTS
        ]
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    where = kept(pipe, chosen, how)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    print(
        f"{date.today()}, `{shlex.join(['python', *sys.argv])}`, {torch.get_num_threads()} threads, {versions},"
        f" {given.scenes} scenes, {given.steps} steps, guidance {how['guidance_scale']:g}, "
        f"{time.perf_counter() - started:.0f} s.\n"
    )
    print(f"Pictures that show the weighted object, of {given.scenes}, with Wilson's 95 % interval:\n")
    print("\n".join(table(results, others=False)))
    print(f"\nThe other three objects of each picture, of {plain.others}:\n")
    print("\n".join(table(results, others=True)))
    print("\n| weighting | at weight 0 at most 10 % | rising with the weight |\n|---|---|---|")
    print("\n".join(verdict(name, cells) for name, cells in results.items()))
    print("\nWhere the object is kept: rows taken from the encoding in which nothing attends to the phrase.\n")
    print("\n".join(where))
    if given.plot or not given.weighting:
        draw(results, given.scenes, given.plot or PLOT)


if __name__ == "__main__":
    main()
