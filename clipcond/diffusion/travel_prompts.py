"""From prompts by frame to a Travel: all of them encoded in the one pass, and interpolated between their frames."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clipcond.condition.algebra import lerp, slerp
from clipcond.condition.cache import Cache
from clipcond.condition.lengths import check_memory
from clipcond.diffusion.encode_plans import EncodedSides, encode_plans
from clipcond.diffusion.findings import PlacedFinding
from clipcond.diffusion.pipeline_view import PipelineView
from clipcond.diffusion.planner import Planner
from clipcond.diffusion.prompt_plans import EncodeOptions, PromptPlans, Prompts, Sides
from clipcond.diffusion.timeline import first_scheduled
from clipcond.diffusion.travel import Travel
from clipcond.diffusion.word_swaps import edits_of_prompt
from clipcond.errors import ConfigError

INTERPOLATIONS = ("linear", "slerp", "hold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A film to be conditioned: its frames, the prompts by frame from 0 on both sides, and how to go from one to the next."""

    frames: int
    prompts: Mapping[int, str]
    negative: Mapping[int, str]
    interpolation: str

    @classmethod
    def of(
        cls,
        pipeline: PipelineView,
        prompts: Mapping[int, str],
        negative: Mapping[int, str],
        *,
        frames: int | None,
        interpolation: str,
    ) -> Film:
        """A film for a pipeline. frames: None for the default of its call.

        Raises ConfigError for a pipeline that draws pictures, a film without a number of frames or with a prompt after its
        end, and an unknown interpolation.
        """
        if getattr(pipeline.pipe, "motion_adapter", None) is None:
            raise ConfigError(
                f"{pipeline.name} has no motion_adapter: prompts cannot travel over its frames; use a pipeline of AnimateDiff"
            )
        if interpolation not in INTERPOLATIONS:
            raise ConfigError(f"interpolation is {interpolation!r}, expected one of {', '.join(INTERPOLATIONS)}")
        count = pipeline.call.get("num_frames") if frames is None else frames
        if count is None:
            raise ConfigError(f"frames is not given, and {pipeline.name} takes a film; say frames=…, as many as it has")
        if not isinstance(count, int):
            raise ConfigError(f"frames is {count!r}, expected a whole number")
        last = max(*prompts, *negative)
        if last >= count:
            raise ConfigError(
                f"frames is {count}, and the last prompt is at frame {last}; say frames={last + 1} or more"
            )
        return cls(frames=count, prompts=prompts, negative=negative, interpolation=interpolation)


def travel(
    planner: Planner, film: Film, options: EncodeOptions, *, cache: Cache | None = None, force_zeros: bool = False
) -> Travel:
    """Encode prompts by frame; see `Conditioner.travel`."""
    plans = _plans(planner, film, options)
    empty = Sides(planner.plans(Sides(_listed(planner, [""]), ()), options, {}).positive, ())
    encoded, about = encode_plans(
        planner.pipeline,
        [plans, empty],
        options,
        inversions=planner.inversions,
        cache=cache,
        force_zeros=force_zeros,
    )
    states = encoded.tensors["prompt_embeds"]
    check_memory(2 * film.frames, states.shape[1], states[0].nbytes)
    of_film = {name: _of_film(film, name, each, about.tensors) for name, each in encoded.tensors.items()}
    one_pooled = "pooled_prompt_embeds" in of_film and max(len(film.prompts), len(film.negative)) > 1
    return Travel(
        states=of_film["prompt_embeds"],
        negative=of_film["negative_prompt_embeds"],
        pooled=of_film.get("pooled_prompt_embeds"),
        negative_pooled=of_film.get("negative_pooled_prompt_embeds"),
        prompts=film.prompts,
        negative_prompts=film.negative,
        plans=tuple(each.by_argument["prompt"] for each in plans.positive),
        negative_plans=tuple(each.by_argument["negative_prompt"] for each in plans.negative),
        findings=tuple(_findings(film, encoded, planner.pipeline.name if one_pooled else "")),
        family=planner.pipeline.family,
        dialect=options.dialect,
        interpolation=film.interpolation,
        pipe=planner.pipeline.pipe,
        takes_frames="num_frames" in planner.pipeline.call,
    )


def over_frames(tensor: Tensor, keys: Sequence[int], frames: int, interpolation: str, empty: Tensor) -> Tensor:
    """The vectors of every frame, (frames, …), from those of some.

    tensor: (K, …), at the frames `keys`, in their order, the first at 0.   interpolation: `linear` in a straight line, `slerp`
    along an arc about `empty`, `hold` from each prompt to the next.
    Each prompt's own frame has its vectors bit for bit, and all after the last prompt have the last one's.
    """
    made = []
    for frame in range(frames):
        at = bisect_right(keys, frame) - 1
        if at + 1 == len(keys) or interpolation == "hold":
            made.append(tensor[at])
            continue
        t = (frame - keys[at]) / (keys[at + 1] - keys[at])
        x, y = tensor[at], tensor[at + 1]
        made.append(lerp(x, y, t) if interpolation == "linear" else slerp(x, y, t, empty))
    return torch.stack(made)


def _of_film(film: Film, name: str, tensor: Tensor, empty: Mapping[str, Tensor]) -> Tensor:
    """A tensor of all frames: (F, T, D), or (1, P) the mean of pooled vectors."""
    side = film.negative if name.startswith("negative_") else film.prompts
    about = empty[name.removeprefix("negative_")][0]
    made = over_frames(tensor, list(side), film.frames, film.interpolation, about)
    return made.mean(dim=0, keepdim=True) if "pooled" in name else made


def _listed(planner: Planner, prompts: Iterable[str]) -> tuple[Prompts, ...]:
    return planner.prompts(list(prompts)).positive


def _plans(planner: Planner, film: Film, options: EncodeOptions) -> Sides[PromptPlans]:
    """The plans of both sides, each prompt once. Raises ConfigError for prompts that the steps or the denoiser change."""
    prompts = Sides(_listed(planner, film.prompts.values()), _listed(planner, film.negative.values()))
    if options.dialect == "a1111" and (changing := first_scheduled(prompts)) is not None:
        raise ConfigError(
            f"the prompt {changing!r} changes over the steps, which no travel does; give its words frames"
        )
    if options.dialect == "compel" and any(edits_of_prompt(each[""], {}) for each in prompts.positive):
        raise ConfigError("a prompt has .swap() in it, which goes with no travel; give its words frames")
    plans = planner.plans(prompts, options, {})
    if any(part.how == "noise" for each in plans.positive for part in each.by_argument["prompt"].parts):
        raise ConfigError('a prompt has AND in it, whose parts only the denoiser can compose; write "and"')
    return plans


def _findings(film: Film, encoded: EncodedSides, one_pooled: str) -> Iterator[PlacedFinding]:
    """The findings, each placed at its frame. one_pooled: the name of a pipeline that has one pooled vector for all frames."""
    frames = {"prompt": list(film.prompts), "negative_prompt": list(film.negative)}
    for each in encoded.findings:
        own = frames[each.argument]
        yield replace(each, argument=f"{each.argument} at frame {own[each.index]}", index=0) if len(own) > 1 else each
    if one_pooled:
        message = (
            f"{one_pooled} takes one pooled vector for all frames, the mean of theirs; only the token states travel"
        )
        yield PlacedFinding("travel-pooled", message, 0, len(film.prompts[0]))
