"""Findings of a call: those of its plans and of their encoding, each with the argument and the prompt that it is about."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from clipcond.condition.families import FamilyLayout
from clipcond.diffusion.adapters import is_active
from clipcond.diffusion.prompt_plans import PromptPlans, Sides
from clipcond.prompt.dialects.schedules import is_scheduled
from clipcond.prompt.findings import Finding
from clipcond.prompt.plan import PromptPlan

EncoderFinding = tuple[str, Finding]  # with the name of the encoder whose plan it is about


@dataclass(frozen=True, slots=True)
class PlacedFinding(Finding):
    """A finding about one text of a call: that of `argument` for the prompt of number `index`.

    Besides those of the plans (`clipcond.prompt.findings`): `mean-near-zero`, a mean that `a1111` did not restore;
    `weights-unused`, weights that change nothing; `text-unused` and `negative-unused`, a text that the pipeline has no
    encoder or no argument for; `embedding-as-text`, an embedding of the pipeline that ComfyUI's dialect reads as text;
    `schedule-pooled`, a schedule that the pooled vector does not follow; `adapter-not-loaded`, a `<lora:…>` that is not
    active in the pipeline; `cut-by-encoder`, the end of a text that a language model or a
    denoiser does not read.
    """

    argument: str = "prompt"
    index: int = 0


def findings_of(plans: PromptPlans, encoding: Sequence[EncoderFinding]) -> Iterator[PlacedFinding]:
    """Yield the findings of one picture's prompts. encoding: those of their encoding."""
    for argument, plan in plans.by_argument.items():
        own = [finding for name, finding in encoding if plans.by_encoder[name] is plan]
        if plan.prompt and not any(each is plan for each in plans.by_encoder.values()):
            message = f"the pipeline has no encoder that reads {argument}"
            own.append(Finding("text-unused", message, 0, len(plan.prompt)))
        for found in dict.fromkeys([*plan.warnings, *own]):
            yield PlacedFinding(found.code, found.message, found.start, found.end, argument, plans.index)


def findings_of_written(plans: Sides[PromptPlans], findings: Iterable[PlacedFinding]) -> tuple[PlacedFinding, ...]:
    """Return the findings of prompts as the user wrote them, and each once those of the prompts that came of them.

    plans: of the whole prompts.   findings: of their variants or parts; the whole prompt is the place of theirs.
    """
    written = {
        (argument, each.index): plan
        for each in (*plans.positive, *plans.negative)
        for argument, plan in each.by_argument.items()
    }
    placed = [
        PlacedFinding(each.code, each.message, each.start, each.end, argument, index)
        for (argument, index), plan in written.items()
        for each in plan.warnings
    ]
    known = {(each.code, each.argument, each.index) for each in placed}
    for each in findings:
        key = each.code, each.argument, each.index
        if key not in known and key[1:] in written:
            known.add(key)
            end = len(written[key[1:]].prompt)
            placed.append(PlacedFinding(each.code, each.message, 0, end, each.argument, each.index))
    return tuple(placed)


def negative_unused(negative: Iterable[PromptPlans], pipeline_name: str) -> Iterator[PlacedFinding]:
    """Yield a finding for each negative prompt of a pipeline whose call takes none."""
    message = f"the call of {pipeline_name} takes no negative prompt"
    for plans in negative:
        for argument, plan in plans.by_argument.items():
            if plan.prompt:
                yield PlacedFinding("negative-unused", message, 0, len(plan.prompt), argument, plans.index)


def cut_by_encoder(plans: Iterable[PromptPlans], encoder: str) -> Iterator[PlacedFinding]:
    """Yield a finding for each text whose end a language model does not read."""
    for each in plans:
        argument, plan = _read_by(each, encoder)
        own = plan.encoders[encoder]
        if own.dropped is not None:
            message = (
                f"{encoder} reads {own.limit} tokens, and loses the last {own.dropped.content_tokens}; shorten the prompt, "
                "or raise max_sequence_length"
            )
            yield PlacedFinding("cut-by-encoder", message, own.dropped.start, own.dropped.end, argument, each.index)


def beyond_one_chunk(plans: Iterable[PromptPlans], encoder: str, pipeline_name: str) -> Iterator[PlacedFinding]:
    """Yield a finding for each text that goes on after the one chunk that a denoiser has places for."""
    for each in plans:
        argument, plan = _read_by(each, encoder)
        own = plan.encoders[encoder]
        mixed = bool(plan.parts) and plan.parts[0].how in ("blend", "sum")
        firsts = {chunk.part: chunk for chunk in reversed(own.chunks)} if mixed else {0: own.chunks[0]}
        lost = [token for chunk in own.chunks if chunk not in firsts.values() for token in chunk.tokens]
        if lost:
            message = (
                f"the denoiser of {pipeline_name} has places for {own.limit} tokens, and the last {len(lost)} are lost; "
                "shorten the prompt, or give its pooled vector all of it by pooled='mean'"
            )
            start, end = min(token.start for token in lost), max(token.end for token in lost)
            yield PlacedFinding("cut-by-encoder", message, start, end, argument, each.index)


def weights_unread(plans: Iterable[PromptPlans], encoder: str, layout: FamilyLayout) -> Iterator[PlacedFinding]:
    """Yield a finding for each text whose weights act in other encoders and not in a language model."""
    if not (layout.concat_width or layout.append_tokens):
        return  # they act nowhere, which `unused_weights` tells
    for each in plans:
        argument, plan = _read_by(each, encoder)
        chunks = (chunk for name in layout.encoders for chunk in plan.encoders[name].chunks)
        weighted = [token for chunk in chunks for token in chunk.tokens if token.weight != 1]
        if weighted:
            message = f"these weights change nothing in {encoder}, which reads the words alone"
            start, end = min(token.start for token in weighted), max(token.end for token in weighted)
            yield PlacedFinding("weights-unused", message, start, end, argument, each.index)


def _read_by(plans: PromptPlans, encoder: str) -> tuple[str, PromptPlan]:
    """The text that an encoder reads, with the name of its argument."""
    plan = plans.by_encoder[encoder]
    return next((argument, own) for argument, own in plans.by_argument.items() if own is plan)


def adapters_not_loaded(sides: Iterable[PromptPlans], active: Collection[str]) -> Iterator[PlacedFinding]:
    """Yield a finding for each text with adapters that are not active in the pipeline. sides: plans of both sides."""
    for plans in sides:
        for argument, plan in plans.by_argument.items():
            missing = {each.name: each for each in plan.adapters if not is_active(each, active)}
            if missing:
                first, names = next(iter(missing.values())), ", ".join(missing)
                message = (
                    f"{names}: taken out of the text and not loaded; load_adapters(pipe, adapters_of(out), FOLDER) does "
                    "that, then condition again"
                )
                yield PlacedFinding("adapter-not-loaded", message, first.start, first.end, argument, plans.index)


def schedule_pooled(plans: Sides[PromptPlans], pipeline_name: str) -> Iterator[PlacedFinding]:
    """Yield a finding for each schedule of a pipeline that keeps the pooled vector of the first step."""
    message = f"{pipeline_name} keeps the pooled vector of the first step; only the token states change"
    for each in (*plans.positive, *plans.negative):
        for argument, plan in each.by_argument.items():
            if is_scheduled(plan.prompt):
                yield PlacedFinding("schedule-pooled", message, 0, len(plan.prompt), argument, each.index)


def unused_weights(
    plans: Mapping[str, PromptPlan],
    weighted: Mapping[str, Sequence[tuple[int, int] | None]],
    used: Collection[str],
) -> Iterator[EncoderFinding]:
    """Yield weights that change nothing: of a prompt that is only pooled, and of a weighting that has none.

    plans: by encoder.   weighted: the spans of weights in each encoder's chunks.   used: the encoders whose weights change
    anything, none under the weighting `none`.
    """
    in_use = {id(plans[name]) for name in used}
    for name, spans in weighted.items():
        reason = f"{name} gives no token states in this family, only a pooled vector"
        message = f"these weights change nothing: {reason if used else 'the weighting is none'}"
        if id(plans[name]) not in in_use:
            yield from ((name, Finding("weights-unused", message, *span)) for span in spans if span is not None)


def mean_near_zero(start: int, end: int) -> Finding:
    """Return the finding of a mean that the weighting could not restore."""
    message = "the mean of the weighted states is near zero; it is not restored, and the states stay as they are"
    return Finding("mean-near-zero", message, start, end)
