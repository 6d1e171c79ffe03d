"""Another tool's prompt embeds beside clipcond's, case by case, on a pipeline that is made of a rule."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clipcond._version import __version__
from clipcond.errors import OptionsError
from clipcond.prompt.dialects.names import DIALECTS
from clipcond.wording import first_line
from clipcond.workflows.conformance_cases import CASES, Case
from clipcond.workflows.events import Events, ignore, task

if TYPE_CHECKING:
    from torch import Tensor

    from clipcond.diffusion.conditioner import Conditioner
    from clipcond.diffusion.conditioning import Conditioning
    from clipcond.diffusion.other_tools import EncodeBoth, Tool

TOLERANCE = 1e-4  # between two float32 libraries; a wrong token or weight gives some hundredths and more
POSITIONS = 77  # of a chunk
NAMES = ("compel", "sd_embed", "lpw")
Verdict = Literal["same", "differs", "cannot"]


@dataclass(frozen=True, slots=True)
class ConformanceOptions:
    """The tool by name, or a function of one's own as `module:function`, and the folder that holds it where it is not installed.

    dialect, weighting, chunking: of such a function; None is A1111's dialect, and what a dialect has by itself.
    Raises OptionsError for an unknown tool or dialect, for a folder that is none, and for settings of a tool that has its own.
    """

    tool: str
    path: Path | None = None
    dialect: str | None = None
    weighting: str | None = None
    chunking: str | None = None

    def __post_init__(self) -> None:
        settings = {name: getattr(self, name) for name in ("dialect", "weighting", "chunking")}
        if self.tool not in NAMES and not re.fullmatch(r"[\w.]+:\w+", self.tool):
            raise OptionsError(
                f"--tool is {self.tool!r}, expected one of {', '.join(NAMES)}, or a function of your own, module:function"
            )
        if self.tool in NAMES and (given := next((name for name, each in settings.items() if each), None)):
            raise OptionsError(f"--{given} is of a function of your own; {self.tool} has its own, leave it out")
        if self.dialect is not None and self.dialect not in DIALECTS:
            raise OptionsError(f"--dialect is {self.dialect!r}, expected one of {', '.join(DIALECTS)}")
        if self.path is not None and not self.path.is_dir():
            raise OptionsError(f"--path is {self.path}, which is no folder; give the one that holds the tool's file")


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """The first position beyond the tolerance: of `prompt` or `negative`, in which chunk, on which token."""

    side: str
    chunk: int
    position: int
    token: str
    difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A case and what came of it.

    difference: the largest, over both sides as far as both have positions.   beyond: positions beyond the tolerance.
    lengths: theirs and ours, where they are not the same.   message: what the tool raised.
    """

    case: str
    prompt: str
    negative: str
    verdict: Verdict
    difference: float | None = None
    beyond: int = 0
    first: First | None = None
    lengths: tuple[int, int] | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conformance:
    """The outcomes of one tool, and the settings that clipcond had."""

    tool: str
    version: str | None
    dialect: str
    weighting: str
    chunking: str
    outcomes: tuple[Outcome, ...]

    def count(self, verdict: Verdict) -> int:
        """Return the number of cases with a verdict."""
        return Counter(each.verdict for each in self.outcomes)[verdict]

    def to_json(self) -> dict[str, object]:
        """Return the document of `clipcond conformance --json`."""
        return {
            "tool": self.tool, "version": self.version, "clipcond": __version__,
            "dialect": self.dialect, "weighting": self.weighting, "chunking": self.chunking, "tolerance": TOLERANCE,
            "same": self.count("same"), "differs": self.count("differs"), "cannot": self.count("cannot"),
            "cases": [asdict(each) for each in self.outcomes],
        }  # fmt: skip


def run(options: ConformanceOptions, cases: Sequence[Case] = CASES, events: Events = ignore) -> Conformance:
    """Compare a tool on all cases that its dialect can write. Raises ResourceMissing where the tool is not there."""
    from clipcond.diffusion.conditioner import Conditioner
    from clipcond.diffusion.seeded_pipeline import seeded_pipeline

    tool = _tool(options)
    with task(events, f"loading {tool.name}"):
        module, pipe = tool.load(options.path), seeded_pipeline()
        theirs, ours = tool.encoder(module, pipe), Conditioner.from_pipeline(pipe)
    outcomes = []
    with task(events, f"comparing with {tool.name}", len(cases), "cases") as advance:
        for case in cases:
            if (prompt := case.prompt(tool.dialect)) is not None:
                outcomes.append(_outcome(case.name, prompt, case.negative, tool, theirs, ours))
            advance(1)
    return Conformance(
        tool=tool.name,
        version=tool.version(),
        dialect=tool.dialect,
        weighting=tool.weighting,
        chunking=tool.chunking,
        outcomes=tuple(outcomes),
    )


def _tool(options: ConformanceOptions) -> Tool:
    from clipcond.condition.weighting import DEFAULTS
    from clipcond.diffusion.other_tools import TOOLS, own_tool
    from clipcond.prompt.plan import CHUNKING

    if options.tool in TOOLS:
        return TOOLS[options.tool]
    dialect = options.dialect or "a1111"
    return own_tool(
        options.tool,
        dialect=dialect,
        weighting=options.weighting or DEFAULTS[dialect],
        chunking=options.chunking or CHUNKING[dialect],
    )


def condition(
    conditioner: Conditioner, dialect: str, weighting: str, chunking: str, prompt: str, negative: str
) -> Conditioning:
    """Condition both sides, the shorter filled up with empty chunks, as the tools do."""
    return conditioner(prompt, negative, dialect=dialect, weighting=weighting, chunking=chunking, lengths="pad_empty")


def _outcome(
    case: str, prompt: str, negative: str, tool: Tool, theirs: EncodeBoth, conditioner: Conditioner
) -> Outcome:
    import torch

    from clipcond.runtime.quiet import quiet_calls

    ours = condition(conditioner, tool.dialect, tool.weighting, tool.chunking, prompt, negative)
    try:
        with torch.no_grad(), quiet_calls():
            found = theirs(prompt, negative)
            sides = [each.detach().float().cpu() for each in found]
    except Exception as error:
        message = f"{type(error).__name__}: {first_line(error)}"
        return Outcome(case=case, prompt=prompt, negative=negative, verdict="cannot", message=message)
    if (problem := _problem(sides, ours)) is not None:
        return Outcome(case=case, prompt=prompt, negative=negative, verdict="cannot", message=problem)
    return compare(case, prompt, negative, sides, ours)


def _problem(sides: Sequence[Tensor], ours: Conditioning) -> str | None:
    """Say why tensors are no states of both sides, (1, T, D) with D of the encoder and finite; None where they are."""
    wanted = (1, ours.prompt_embeds.shape[-1])
    if len(sides) != 2 or any(each.ndim != 3 or (each.shape[0], each.shape[2]) != wanted for each in sides):
        shapes = ", ".join(str(tuple(each.shape)) for each in sides)
        return f"gives tensors of shape {shapes}, expected two of (1, positions, {wanted[1]})"
    return None if all(bool(each.isfinite().all()) for each in sides) else "gives numbers that are not finite"


def compare(case: str, prompt: str, negative: str, theirs: Sequence[Tensor], ours: Conditioning) -> Outcome:
    """Compare the states of both sides with a Conditioning's. theirs: prompt and negative prompt, (1, T, D) each."""
    sides = list(zip(("prompt", "negative"), theirs, _states(ours), strict=True))
    gaps = {side: _gaps(other, own) for side, other, own in sides}
    lengths = next(((len(other[0]), len(own[0])) for _, other, own in sides if other.shape[1] != own.shape[1]), None)
    beyond = sum(int((gap > TOLERANCE).sum()) for gap in gaps.values())
    return Outcome(
        case=case,
        prompt=prompt,
        negative=negative,
        verdict="differs" if beyond or lengths else "same",
        difference=max(float(gap.max()) for gap in gaps.values()),
        beyond=beyond,
        first=next(chain.from_iterable(_firsts(side, gap, ours) for side, gap in gaps.items()), None),
        lengths=lengths,
    )


def _states(ours: Conditioning) -> tuple[Tensor, Any]:
    return ours.prompt_embeds.float().cpu(), ours.negative_prompt_embeds.float().cpu()  # type: ignore[union-attr]


def _gaps(theirs: Tensor, ours: Tensor) -> Tensor:
    """The largest difference at each position that both have, (T,)."""
    common = min(theirs.shape[1], ours.shape[1])
    return (theirs[0, :common] - ours[0, :common]).abs().amax(-1)


def _firsts(side: str, gaps: Tensor, ours: Conditioning) -> Iterator[First]:
    """The first position of a side that is beyond the tolerance, if there is any."""
    for at in (gaps > TOLERANCE).nonzero().flatten().tolist()[:1]:
        chunk, position = divmod(at, POSITIONS)
        token = _token(ours, side, chunk, position)
        yield First(side=side, chunk=chunk, position=position, token=token, difference=float(gaps[at]))


def _token(ours: Conditioning, side: str, chunk: int, position: int) -> str:
    """The text of the token at a position; the name of what else stands there."""
    (plan,) = ours.plans if side == "prompt" else ours.negative_plans
    (encoder,) = plan.encoders.values()
    if position == 0:
        return "BOS"
    if len(plan.parts) > 1:
        return "a part's token"
    if chunk >= len(encoder.chunks):
        return "an empty chunk"
    tokens = encoder.chunks[chunk].tokens
    return tokens[position - 1].text if position <= len(tokens) else "EOS or padding"
