"""Options of `generate`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clipcond.errors import OptionsError
from clipcond.workflows.prompt_options import PromptOptions

_DEVICE = re.compile(r"(auto|cpu|cuda|mps|xpu|hpu|npu|mtia)(:\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """A prompt, the pipeline that draws it, the number of pictures, and their folder.

    out: the folder for the pictures.   conditioning: a file of `encode` in place of a prompt; force: take one that other
    encoders made.   regions: a JSON file of regions with prompts of their own, whose base prompt and negative prompt are
    taken where none is given.   regions_text: regions as a picture carries them.   infotext: a picture, a text file or `-`
    with prompt, negative prompt, seed and settings, which other options win over.   expand: fill in the prompt as a
    template, with the lists of `wildcards`; picture i has the prompt of its seed.   steps, guidance_scale: None is what the
    pipeline advises.   seed: None is 0, and in a folder that has pictures the next one.   stock: leave the prompt to the
    pipeline.   replace: `old=new`, words that take the place of a phrase; the rest of the picture stays that of the prompt
    with the old ones.
    keep: rerank with `rerank_model` and move all but the best so many to `out/rejected`.   adaptive: give up candidates on the
    way, so that a quarter of `count` is drawn to the end, and ranked.
    dtype: `float32`, `float16` or `bfloat16`.   device: None is CUDA where there is one.
    Raises OptionsError for options that contradict one another.
    """

    out: Path
    prompt: PromptOptions = field(default_factory=PromptOptions)
    conditioning: Path | None = None
    regions: Path | None = None
    regions_text: str | None = None
    force: bool = False
    infotext: str | None = None
    expand: bool = False
    wildcards: tuple[Path, ...] = ()
    pipeline: str = "mini"
    count: int = 8
    steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    stock: bool = False
    replace: tuple[str, ...] = ()
    keep: int | None = None
    adaptive: bool = False
    rerank_model: str = "mini"
    batch_size: int = 8
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str | None = None

    def __post_init__(self) -> None:
        if problem := problem_with(self):
            raise OptionsError(problem)

    @property
    def replacements(self) -> dict[str, str]:
        """New words by the phrases that they take the place of."""
        pairs = [each.partition("=") for each in self.replace]
        return {old.strip(): new.strip() for old, _, new in pairs}

    @property
    def through(self) -> Literal["conditioner", "stock"]:
        """The reader of the prompt: the Conditioner or the pipeline itself."""
        return "stock" if self.stock else "conditioner"


def problem_with(options: GenerateOptions) -> str | None:
    """Say which options contradict one another, in words for the one who gave them; None when all is well."""
    prompt, keep = options.prompt, options.keep
    if options.device is not None and not _DEVICE.fullmatch(options.device):
        return f"--device {options.device} does not exist; name cpu, cuda (cuda:1 is the second of several) or mps"
    if options.conditioning is not None and (options.infotext is not None or options.expand):
        also = "--infotext" if options.infotext is not None else "--expand"
        return f"--conditioning FILE says what {also} would; leave one of them out"
    if options.regions is not None and (problem := _beside_regions(options)):
        return problem
    if options.conditioning is not None:
        if options.stock:
            return "--stock has no use for a --conditioning; leave one of them out"
        if given := _given(prompt):
            return f"--conditioning FILE says what {given} would; leave one of them out"
    elif prompt.prompt is None and options.infotext is None and options.regions is None:
        return "give a PROMPT, or --infotext FILE, or --conditioning FILE"
    elif options.force:
        return "--force is about a --conditioning FILE; leave it out"
    if options.stock and (unused := prompt.first_given(apart_from=("negative_prompt", "clip_skip"))):
        return f"--stock leaves the prompt to the pipeline; leave out {unused}"
    if options.replace and (problem := _problem_with_replace(options)):
        return problem
    if keep is not None and keep > options.count:
        return f"--keep {keep} of --count {options.count} pictures"
    if options.adaptive and (options.replace or prompt.is_counterfactual):
        other = "--replace" if options.replace else "--weighting counterfactual"
        return f"--adaptive draws each candidate once, and {other} twice; leave one of them out"
    if options.adaptive and (keep is None or keep >= options.count or options.expand):
        if options.expand:
            return "--adaptive compares pictures of one prompt, and --expand makes many; leave one of them out"
        return f"--adaptive gives up candidates; say how many to --keep, fewer than --count {options.count}"
    elsewhere = (options.conditioning, options.infotext, options.regions)
    if keep is not None and elsewhere == (None, None, None) and not prompt.text.strip():
        return "--keep needs a PROMPT to score the pictures by"
    return None


def _beside_regions(options: GenerateOptions) -> str | None:
    beside = {
        "--conditioning": options.conditioning is not None,
        "--stock": options.stock,
        "--expand": options.expand,
        "--prompt-2": options.prompt.prompt_2 is not None,
        "--prompt-3": options.prompt.prompt_3 is not None,
        "--operation": bool(options.prompt.operations),
        "--replace": bool(options.replace),
        "--weighting counterfactual": options.prompt.is_counterfactual,
    }
    given = next((name for name, is_given in beside.items() if is_given), None)
    return f"--regions FILE does not go with {given}; leave one of them out" if given else None


def _problem_with_replace(options: GenerateOptions) -> str | None:
    """Say what is wrong with the words to replace; None when all is well."""
    for each in options.replace:
        old, _, new = each.partition("=")
        if not old.strip() or not new.strip():
            return f"--replace {each!r}: expected OLD=NEW, as in --replace 'red circle=blue star'"
    if options.conditioning is not None or options.stock:
        other = "--stock" if options.stock else "--conditioning FILE"
        return f"--replace changes the PROMPT, which {other} does not have; leave one of them out"
    if options.prompt.is_counterfactual:
        return "--replace goes with a weighting of the token states; leave out --weighting counterfactual"
    return None


def _given(prompt: PromptOptions) -> str | None:
    return "PROMPT" if prompt.prompt is not None else prompt.first_given()
