"""Inputs of `generate` before any model is loaded: infotexts, templates, and files that must be there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from clipcond.diffusion.regions import Region
from clipcond.errors import DataError, ResourceMissing
from clipcond.images.metadata.image_prompt import REGIONS
from clipcond.prompt.infotext import Infotext
from clipcond.workflows.events import Events, Note
from clipcond.workflows.generate_options import GenerateOptions
from clipcond.workflows.infotexts import (
    dialect_of,
    drawing_settings,
    operations_of,
    pasted_infotext,
    read_infotext,
    taken_apart,
)
from clipcond.workflows.prompt_options import PromptOptions, check_folders
from clipcond.workflows.regions_file import RegionsFile, read_regions, regions_of_text
from clipcond.workflows.templates import expanded, template_hint

_LONGEST_HEADER = 100 << 20  # bytes, as safetensors has it


def with_infotext(options: GenerateOptions, events: Events) -> GenerateOptions:
    """Return the options with a named or pasted infotext taken apart; options that were given win over it.

    Raises as `infotexts.read_infotext` does.
    """
    named = options.infotext
    infotext = pasted_infotext(options.prompt.text) if named is None else read_infotext(named)
    if infotext is None:
        return options
    found = drawing_settings(infotext)
    events(Note(taken_apart(infotext)))
    if found.ignored:
        events(Note(f"not taken from the infotext: {', '.join(found.ignored)}"))
    given = options.prompt
    return replace(
        options,
        infotext=None,
        regions_text=infotext.settings.get(REGIONS) if options.regions is None else None,
        prompt=prompt_with_infotext(
            given if named is not None else replace(given, prompt=None), infotext, found.clip_skip
        ),
        steps=found.steps if options.steps is None else options.steps,
        guidance_scale=found.guidance_scale if options.guidance_scale is None else options.guidance_scale,
        seed=found.seed if options.seed is None else options.seed,
    )


def with_regions(options: GenerateOptions) -> tuple[GenerateOptions, tuple[Region, ...]]:
    """Return the regions, none where there are none, and the options with their base prompt where none was given.

    Raises what reading them raises.
    """
    if options.regions is not None:
        found = read_regions(options.regions)
    elif options.regions_text is not None:
        found = RegionsFile(regions=regions_of_text(options.regions_text))
    else:
        return options, ()
    given = options.prompt
    negative = found.negative_prompt if given.negative_prompt is None else given.negative_prompt
    base = (found.prompt or "") if given.prompt is None else given.prompt
    return replace(options, prompt=replace(given, prompt=base, negative_prompt=negative)), found.regions


def prompt_with_infotext(given: PromptOptions, infotext: Infotext, clip_skip: int | None) -> PromptOptions:
    """Return the prompts of an infotext with their settings, those that were given in front."""
    settings: Mapping[str, str] = infotext.settings
    negative = given.negative_prompt if given.negative_prompt is not None else infotext.negative_prompt or None
    return replace(
        given,
        prompt=infotext.prompt if given.prompt is None else given.prompt,
        negative_prompt=negative,
        prompt_2=given.prompt_2 or settings.get("Prompt 2"),
        prompt_3=given.prompt_3 or settings.get("Prompt 3"),
        dialect=given.dialect or dialect_of(infotext),
        weighting=given.weighting or settings.get("Prompt weighting"),
        chunking=given.chunking or settings.get("Prompt chunking"),
        clip_skip=given.clip_skip or clip_skip or 0,
        pooled=settings.get("Prompt pooled", "first") if given.pooled == "first" else given.pooled,
        lengths=given.lengths or settings.get("Prompt lengths"),
        operations=given.operations or operations_of(infotext),
    )


def prompts_of(options: GenerateOptions, seed: int, events: Events) -> tuple[PromptOptions, ...]:
    """Return the prompt of each picture: all the same, or with `expand` the one that the picture's seed gives."""
    prompt = options.prompt
    if not options.expand:
        for text in prompt.texts:
            if hint := template_hint(text):
                events(Note(hint))
        return (prompt,) * options.count
    return tuple(
        replace(
            prompt,
            prompt=expanded(prompt.text, events, seed=seed + number, wildcards=options.wildcards),
            negative_prompt=prompt.negative_prompt
            and expanded(prompt.negative_prompt, events, seed=seed + number, wildcards=options.wildcards),
        )
        for number in range(options.count)
    )


def check_replaced(prompts: Sequence[PromptOptions], options: GenerateOptions) -> None:
    """Raise ConfigError for a phrase to replace that a prompt has not."""
    if options.replace:
        from clipcond.diffusion.counterfactual.replaced_prompts import replaced_prompts
        from clipcond.diffusion.prompt_plans import Sides

        for prompt in dict.fromkeys(prompts):
            replaced_prompts(Sides(({"": prompt.text},), ()), options.replacements, prompt.dialect)


def check_inputs(options: GenerateOptions) -> None:
    """Check, without a model library, that files and folders are there.

    Raises ResourceMissing for one that is not, DataError for a conditioning whose header is damaged, ModelError for a
    pipeline's name.
    """
    from clipcond.diffusion.pipeline_names import find_pipeline
    from clipcond.workflows.model_names import check_model

    if options.conditioning is not None:
        check_header(options.conditioning)
    check_folders(options.prompt)
    for folder in options.wildcards:
        if not folder.is_dir():
            raise ResourceMissing(f"{folder}: no such folder; give one with lists of wildcards")
    find_pipeline(options.pipeline)
    if options.keep is not None:
        check_model(options.rerank_model)


def check_header(file: Path) -> None:
    """Raise ResourceMissing or DataError for a safetensors file that is not there or whose header is damaged."""
    if not file.is_file():
        raise ResourceMissing(f"no conditioning at {file}: there is no such file")
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(_LONGEST_HEADER, file.stat().st_size - 8):
            raise DataError(f"{file} is no conditioning: it is not a safetensors file, or it was cut off")
        header = stream.read(length)
    try:
        document = json.loads(header)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise DataError(f"{file} is no conditioning: its header is damaged")
