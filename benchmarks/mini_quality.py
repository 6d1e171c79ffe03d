"""How good the embedded model is, judged object by object from pixels (`clipcond.mini.world.check`).

    python benchmarks/mini_quality.py                      # everything, about 15 minutes on two cores
    python benchmarks/mini_quality.py --scenes 100 --only within

Scenes and captions are held out: they come from seeds that no recipe uses. Prints a Markdown table for docs/mini.md.
"""

from __future__ import annotations

import argparse
import platform
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from typing import Any

import torch
from PIL import Image

import clipcond
from clipcond.mini import world
from clipcond.prompt.tokenizer import CONTENT, Token, token_ids, tokenize
from clipcond.rerank.phrases import split_phrases
from clipcond.score.phrases import phrase_scores
from clipcond.score.thresholds import wilson


@dataclass(frozen=True)
class Case:
    """A held-out scene, its caption, and where in the caption each object stands."""

    scene: world.Scene
    caption: str
    place: tuple[str, ...]  # per object: `first` chunk, `straddling` token 75, or `after` it


@dataclass
class Tally:
    right: int = 0
    seen: int = 0
    rows: list[str] = field(default_factory=list)

    def add(self, verdicts: Sequence[bool]) -> None:
        self.right += sum(verdicts)
        self.seen += len(verdicts)

    @property
    def share(self) -> float:
        return self.right / max(1, self.seen)

    def __str__(self) -> str:
        if not self.seen:
            return "none seen"
        share = wilson(self.right, self.seen)
        return (
            f"{100 * share.value:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}] ({self.right} of {self.seen})"
        )


def cases(kind: str, count: int, seed: str) -> list[Case]:
    """`count` cases whose caption fits 75 tokens (`within`) or does not (`beyond`)."""
    rng, found = random.Random(f"{seed}/{kind}"), list[Case]()
    while len(found) < count:
        scene = world.sample(rng)
        caption = world.caption(scene, rng, rng.choice(("terse", "plain", "wordy")))
        tokens = tokenize(caption)
        if (len(tokens) > CONTENT) == (kind == "beyond"):
            found.append(Case(scene, caption, places(scene, caption, tokens)))
    return found


def places(scene: world.Scene, caption: str, tokens: Sequence[Token]) -> tuple[str, ...]:
    """Which chunk names each object. What a caption cut at token 75 completely names is `first`."""
    if len(tokens) <= CONTENT:
        return ("first",) * len(scene.objects)
    named = len(world.parse(caption[: tokens[CONTENT].start]).objects)
    # The object after the last complete one may have begun before the cut: its part of the caption starts there.
    rest = world.parse(caption[tokens[CONTENT].start :]).objects
    straddles = len(rest) < len(scene.objects) - named or rest != scene.objects[named:]
    return tuple(
        "first" if k < named else "straddling" if k == named and straddles else "after"
        for k in range(len(scene.objects))
    )


def painted(
    pipe: Any, conditioner: Any, chosen: Sequence[Case], how: dict[str, Any], *, stock: bool
) -> Iterator[tuple[Case, Image.Image]]:
    """One picture a case, 16 at a time, cases of like length together."""
    by_length = sorted(chosen, key=lambda case: len(token_ids(case.caption)))
    for at in range(0, len(by_length), 16):
        some = by_length[at : at + 16]
        prompts = [case.caption for case in some]
        asked = {"prompt": prompts} if stock else conditioner(prompts).kwargs
        noise = [torch.Generator().manual_seed(at + k) for k in range(len(some))]
        yield from zip(some, pipe(**asked, **how, generator=noise).images, strict=True)


def within(pipe: Any, conditioner: Any, options: argparse.Namespace) -> list[str]:
    objects, grounds, scenes = Tally(), Tally(), Tally()
    for case, image in painted(
        pipe, conditioner, cases("within", options.scenes, options.seed), options.how, stock=False
    ):
        verdicts = world.check(image, case.scene)
        objects.add(verdicts)
        scenes.add([all(verdicts)])
        grounds.add([world.look(image).background == case.scene.background])
    return [
        f"| captions within 75 tokens: objects right | ≥ 85 % | {objects} |",
        f"| … whole scenes right | – | {scenes} |",
        f"| … backgrounds right | – | {grounds} |",
    ]


def beyond(pipe: Any, conditioner: Any, options: argparse.Namespace) -> list[str]:
    rows, chosen = [], cases("beyond", options.scenes, options.seed)
    for name, stock, target in (("stock pipeline", True, "≤ 15 %"), ("through the Conditioner", False, "≥ 75 %")):
        tallies = {place: Tally() for place in ("first", "straddling", "after")}
        for case, image in painted(pipe, conditioner, chosen, options.how, stock=stock):
            for place, verdict in zip(case.place, world.check(image, case.scene), strict=True):
                tallies[place].add([verdict])
        rows += [
            f"| captions beyond 75 tokens, {name}: objects named after token 75 | {target} | {tallies['after']} |",
            f"| … objects that straddle token 75 | – | {tallies['straddling']} |",
            f"| … objects named before | – | {tallies['first']} |",
        ]
    return rows


def best_of(pipe: Any, conditioner: Any, options: argparse.Namespace) -> list[str]:
    """What choosing among 16 pictures removes, in one step, where the pipeline errs: in twenty it hardly does."""
    rows = []
    for guidance in (1.5, 2.0):
        how = {**options.how, "num_inference_steps": 1, "guidance_scale": guidance}
        for kind in ("within", "beyond"):
            rows += best_of_kind(pipe, conditioner, options, kind, how, f", one step, guidance {guidance:g}")
    return rows


def best_of_kind(
    pipe: Any, conditioner: Any, options: argparse.Namespace, kind: str, how: dict[str, Any], said: str
) -> list[str]:
    scorer = clipcond.Scorer.load(options.scorer)
    tallies, judged = {1: Tally(), 8: Tally(), 16: Tally()}, Tally()
    for number, case in enumerate(cases(kind, options.scenes + options.groups, options.seed)[options.scenes :]):
        asked = conditioner(case.caption, num_images_per_prompt=16).kwargs
        noise = [torch.Generator().manual_seed(1000 * number + k) for k in range(16)]
        images = pipe(**asked, **how, generator=noise).images
        verdicts = [world.check(image, case.scene) for image in images]
        cosine = scorer.score(images, case.caption).cosine
        for size, tally in tallies.items():
            tally.add(verdicts[int(cosine[:size].argmax())])
        judged.add(max(verdicts, key=sum))
    wrong = {size: tally.seen - tally.right for size, tally in tallies.items()}
    gone = wrong[1] - (judged.seen - judged.right)
    rows = [
        f"| {options.groups} captions {kind} 75 tokens{said}, one random picture: objects right | – | {tallies[1]} |"
    ]
    for size, target in ((8, "–"), (16, "70 % of what the judge removes")):
        told = f"{wrong[1] - wrong[size]} of {wrong[1]} errors gone"
        rows.append(f"| … best of {size} by clipcond's score | {target} | {tallies[size]}; {told} |")
    told = f"{gone} of {wrong[1]} errors gone"
    return [*rows, f"| … best of 16 by the judge itself, the upper bound | – | {judged}; {told} |"]


def retrieval(_pipe: Any, _conditioner: Any, options: argparse.Namespace) -> list[str]:
    """R@1 among held-out scenes of distinct content, caption within 75 tokens."""
    scorer = clipcond.Scorer.load(options.scorer)
    rng, found = random.Random(f"{options.seed}/retrieval"), dict[object, Case]()
    while len(found) < options.gallery:
        scene = world.sample(rng)
        caption = world.caption(scene, rng, rng.choice(("terse", "plain", "wordy")))
        if len(token_ids(caption)) <= CONTENT:
            found.setdefault((scene.background, frozenset(scene.objects)), Case(scene, caption, ()))
    gallery = list(found.values())
    pictures = scorer.dual.image.embed([world.render(case.scene, rng) for case in gallery])
    texts = torch.tensor([text.vector.tolist() for text in scorer.texts([case.caption for case in gallery])])
    scores = pictures.float() @ texts.float().T
    truth = torch.arange(len(gallery))
    to_text = 100 * float((scores.argmax(1) == truth).float().mean())
    to_image = 100 * float((scores.argmax(0) == truth).float().mean())
    return [
        f"| R@1 among {len(gallery)} new scenes, image to text / text to image | ≥ 97 % | {to_text:.1f} % / {to_image:.1f} % |"
    ]


def spotting(_pipe: Any, _conditioner: Any, options: argparse.Namespace) -> list[str]:
    """Rank the right picture against 15 in which one object has another colour, shape or place."""
    scorer, rows = clipcond.Scorer.load(options.scorer), []
    for kind, target in (("within", "≥ 90 %"), ("beyond", "≥ 75 %")):
        first, rng = Tally(), random.Random(f"{options.seed}/spotting")
        for case in cases(kind, options.scenes, options.seed):
            wrong = [world.one_changed(case.scene, rng) for _ in range(15)]
            pictures = [world.render(scene, rng) for scene in (case.scene, *wrong)]
            first.add([scorer.score(pictures, case.caption).cosine.argmax() == 0])
        rows.append(
            f"| captions {kind} 75 tokens: the right picture first among 15 with one object wrong | {target} | {first} |"
        )
    return rows


def naming(_pipe: Any, _conditioner: Any, options: argparse.Namespace) -> list[str]:
    """Name the wrong one of a prompt's phrases, as `rerank --phrases` does, from pictures with one object changed."""
    scorer = clipcond.Scorer.load(options.scorer)
    margin, rng = 3 / scorer.dual.logit_scale, random.Random(f"{options.seed}/naming")
    last, named, falsely = Tally(), Tally(), Tally()
    for _ in range(options.scenes):
        right = world.sample(rng, least=3, most=6)
        wrong = world.one_changed(right, rng)
        at = next(k for k, thing in enumerate(wrong.objects) if thing != right.objects[k])
        caption = world.caption(right, rng, "terse")
        phrases = split_phrases(caption)
        own = [k for k, phrase in enumerate(phrases) if world.parse(phrase).objects == (right.objects[at],)]
        if len(own) != 1:  # a pattern with a comma of its own says an object in two phrases
            continue
        vectors = scorer.dual.image.embed([world.render(wrong, rng)])
        cosines = [float(scorer.score(vectors, phrase).cosine[0]) for phrase in phrases]
        found = phrase_scores(cosines, margin=margin)
        last.add([found.weakest == own[0]])
        named.add([own[0] in found.missing])
        falsely.add([k in found.missing for k in range(len(phrases)) if k != own[0]])
    return [
        f"| scenes of 3 to 6 objects, one of them wrong: its phrase scores lowest | – | {last} |",
        f"| … its phrase is named as missing | ≥ 90 % | {named} |",
        f"| … other phrases are named as missing | – | {falsely} |",
    ]


def speed(_pipe: Any, _conditioner: Any, options: argparse.Namespace) -> list[str]:
    """Whole-process seconds of eight pictures from the command line."""
    prompt, times = cases("within", 1, options.seed)[0].caption, []
    for run in range(5):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            command = [
                sys.executable,
                "-m",
                "clipcond.cli",
                "generate",
                prompt,
                "-n",
                "8",
                "--seed",
                str(run),
                "--out",
                folder,
            ]
            subprocess.run(command, check=True, capture_output=True)
            times.append(time.perf_counter() - start)
    times.sort()
    return [
        f"| 8 pictures, loading included | ≤ 10 s | {times[2]:.1f} s (median of 5, {times[0]:.1f} to {times[-1]:.1f}) |"
    ]


PARTS = {
    "within": within,
    "beyond": beyond,
    "best_of": best_of,
    "retrieval": retrieval,
    "spotting": spotting,
    "naming": naming,
    "speed": speed,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scenes", type=int, default=500)
    options.add_argument("--groups", type=int, default=75, help="scenes of each kind for best of 16")
    options.add_argument("--gallery", type=int, default=2000)
    options.add_argument(
        "--seed", default="mini quality", help="names the held-out set; another one for choosing settings"
    )
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--guidance", type=float, help="the pipeline's own advice if not given")
    options.add_argument("--only", choices=list(PARTS), action="append")
    options.add_argument("--pipeline", default="mini")
    options.add_argument("--scorer", default="mini", help="any model that `rerank --model` takes")
    given = options.parse_args()

    from clipcond.diffusion.pipelines import advice

    pipe = clipcond.load_pipeline(given.pipeline)
    pipe.set_progress_bar_config(disable=True)
    guidance = advice(pipe).guidance_scale if given.guidance is None else given.guidance
    given.how = {"num_inference_steps": given.steps, "guidance_scale": guidance}
    conditioner = clipcond.Conditioner.from_pipeline(pipe)
    print(
        f"{date.today()}, `{shlex.join(['python', *sys.argv])}`, {torch.get_num_threads()} threads of {platform.machine()},"
    )
    print(
        ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers", "open_clip_torch")),
        end=", ",
    )
    print(f"{given.steps} steps, guidance {guidance:g}; Wilson 95 % intervals over objects.\n")
    print("| what | target | measured |\n|---|---|---|")
    for name in given.only or PARTS:
        for row in PARTS[name](pipe, conditioner, given):
            print(row, flush=True)


if __name__ == "__main__":
    main()
