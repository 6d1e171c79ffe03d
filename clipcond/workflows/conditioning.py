"""From the options of a prompt to its conditioning, as `encode` and `generate` need it, and back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from clipcond.condition.families import LAYOUTS
from clipcond.condition.weighting import DEFAULTS
from clipcond.diffusion.compose_denoiser import Composition
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.conditioning import Conditioning
from clipcond.diffusion.counterfactual.steering import Steering
from clipcond.diffusion.regions import Region
from clipcond.errors import ConfigError
from clipcond.images.metadata.image_prompt import REGIONS
from clipcond.prompt.analysis.plan_summary import with_flag
from clipcond.workflows.events import Events, Note
from clipcond.workflows.prompt_options import PromptOptions, adapters_of_texts, composes
from clipcond.workflows.regions_file import text_of_regions, with_all_texts


def condition(
    pipe: Any, options: PromptOptions, steps: int, events: Events, *, replaced: Mapping[str, str] | None = None
) -> Conditioning | Composition | Steering:
    """Condition a pipeline on a prompt; one with AND becomes a composition, one whose weights act on the prediction or whose
    phrases are replaced a steering. Findings of the texts become notes.

    pipe: a diffusers pipeline, which gets the LoRAs that the prompt names.   steps: of the sampler.   replaced: other words
    for phrases of the prompt.
    Raises ConfigError for an AND with prompts of its own for further encoders, and what the Conditioner raises.
    """
    conditioner = conditioner_for(pipe, options, events)
    made: Conditioning | Composition | Steering
    if options.operations and (replaced or options.is_counterfactual):
        raise ConfigError(
            "--operation changes the whole conditioning, and replaced or counterfactual phrases only their places"
        )
    if replaced or options.is_counterfactual:
        made = conditioner.counterfactual(options.text, **options.arguments, steps=steps, replace=replaced or None)
        if not made.phrases:
            events(Note("--weighting counterfactual: no phrase has a weight, so that the picture is the one without"))
    elif not composes(options.text, options.dialect):
        made = conditioner(options.text, **options.arguments, steps=steps)
    elif options.prompt_2 or options.prompt_3:
        raise ConfigError("the parts of AND are read by all encoders; leave out --prompt-2 and --prompt-3")
    elif options.operations:
        raise ConfigError("--operation is about one prompt, and AND makes several; leave one of them out")
    else:
        arguments = {name: each for name, each in options.arguments.items() if name not in ("prompt_2", "prompt_3")}
        made = conditioner.compose(options.text, **arguments, steps=steps)
    note_findings(made, events)
    return made


def condition_regions(
    pipe: Any, options: PromptOptions, regions: Sequence[Region], steps: int, events: Events
) -> Composition:
    """Condition a pipeline on a base prompt, that of the options, and on regions; as `condition` otherwise."""
    conditioner = conditioner_for(pipe, with_all_texts(options, regions), events)
    arguments = {name: each for name, each in options.arguments.items() if name not in ("prompt_2", "prompt_3")}
    made = conditioner.regions(options.text, regions, **arguments, steps=steps)
    note_findings(made, events)
    return made


def prompt_options_of(conditioning: Conditioning) -> PromptOptions:
    """Return the options that a conditioning of one prompt was made with."""
    other = {name: plans[0].prompt for name, plans in conditioning.other_plans.items()}
    layout = LAYOUTS.get(conditioning.family)
    return PromptOptions(
        prompt=conditioning.prompts[0],
        negative_prompt=next(iter(conditioning.negative_prompts), None),
        prompt_2=other.get("prompt_2"),
        prompt_3=other.get("prompt_3"),
        dialect=conditioning.dialect,
        weighting=_unless(DEFAULTS.get(conditioning.dialect), conditioning.weighting),
        chunking=conditioning.chunking,
        clip_skip=conditioning.clip_skip,
        pooled=conditioning.pooled,
        lengths=_unless(layout.lengths if layout else None, conditioning.lengths),
        operations=tuple(map(str, conditioning.operations)),
    )


def conditioner_for(pipe: Any, options: PromptOptions, events: Events) -> Conditioner:
    """Return the Conditioner of a pipeline, which gets the LoRAs and the embeddings that the options name."""
    load_loras(pipe, options, events)
    conditioner = Conditioner.from_pipeline(pipe, embeddings=options.embeddings)
    for path, reason in conditioner.inversions.unreadable:
        events(Note(f"{path}: {reason}"))
    if options.embeddings is not None and not conditioner.inversions:
        events(Note(f"{options.embeddings}: no embeddings there"))
    return conditioner


def load_loras(pipe: Any, options: PromptOptions, events: Events) -> None:
    """Load the LoRAs of all texts from `lora_dir` into a pipeline; without a folder, note that they are left out."""
    from clipcond.diffusion.adapters import load_adapters, merge

    wanted = merge(adapters_of_texts(options))
    if not wanted:
        return
    if options.lora_dir is not None:
        load_adapters(pipe, wanted, options.lora_dir)
        return
    names, are = ", ".join(adapter.name for adapter in wanted), "is" if len(wanted) == 1 else "are"
    events(Note(f"the prompt asks for {names}, which {are} left out; --lora-dir DIR names the folder"))


def note_findings(conditioning: Conditioning | Composition | Steering, events: Events) -> None:
    """Note the findings of the texts, each once with its number."""
    found = Counter(
        (finding.argument, with_flag(finding))
        for finding in conditioning.findings
        if finding.code != "adapter-not-loaded"  # `load_loras` names the option
    )
    for (argument, message), times in found.items():
        often = f" ({times} times)" if times > 1 else ""
        events(Note(f"{argument.replace('_', ' ')}: {message}{often}"))


def note_unseen(pipe: Any, options: PromptOptions, model: str, events: Events) -> None:
    """Note the words of the prompts that none of the pipeline's CLIP encoders has ever seen, and a pipeline in the cache."""
    from clipcond.diffusion.pipeline_view import view_pipeline
    from clipcond.encode.text import TextTower
    from clipcond.encode.unseen_words import tell_unseen, unseen_words
    from clipcond.models.catalogue import pretrained_here
    from clipcond.prompt.plan import plan

    encoders = view_pipeline(pipe).encoders.values()
    towers = [each.tower for each in encoders if isinstance(each.tower, TextTower)]
    if not towers:
        return
    tokens = [
        token
        for text in options.texts
        for chunk in next(iter(plan(text, dialect=options.dialect).encoders.values())).chunks
        for token in chunk.tokens
    ]
    first, *others = [unseen_words(tower, tokens) for tower in towers]
    unseen = [word for word in first if all(word in other for other in others)]
    if unseen:
        other = pretrained_here("generate")
        events(Note(tell_unseen(unseen, model, f"--pipeline {other}" if other and other != model else "")))


def infotext_settings(
    options: PromptOptions, regions: Sequence[Region] = (), replaced: Mapping[str, str] | None = None
) -> dict[str, object]:
    """Return the settings of a prompt for `format_infotext`, those that are not usual. replaced: phrases and their new words.

    The format's prompts are in A1111's syntax, so any other dialect is named.
    """
    named: dict[str, object | None] = {
        "Clip skip": options.clip_skip + 1 if options.clip_skip else None,  # its readers count from 1
        "Prompt dialect": _unless("a1111", options.dialect),
        "Prompt weighting": options.weighting,
        "Prompt chunking": options.chunking,
        "Prompt pooled": _unless("first", options.pooled),
        "Prompt lengths": options.lengths,
        "Prompt 2": options.prompt_2,
        "Prompt 3": options.prompt_3,
        "Prompt operations": json.dumps(options.operations, ensure_ascii=False) if options.operations else None,
        REGIONS: text_of_regions(regions) if regions else None,
        "Replaced": "; ".join(f"{old}={new}" for old, new in (replaced or {}).items()) or None,
    }
    return {name: value for name, value in named.items() if value is not None}


def _unless(usual: str | None, value: str) -> str | None:
    return None if value == usual else value
