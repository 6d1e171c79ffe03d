"""A conditioning as a file: safetensors, with the plans and settings that explain the tensors as metadata.

Format 2: tensors by the names of the pipeline's arguments; for a prompt that changes over the steps those of its further
variants as `1/prompt_embeds` and so on, for one with `.swap()` the edited side as `edited/prompt_embeds`. Metadata:
`format`, `conditioning`, a JSON object with the plans of all texts, the findings, the settings, the schedule, the edits,
the operations that were applied and the fingerprints of the encoders, and `crc32`, a checksum of all this; files without
one, of earlier versions, are read. No tensor holds a number that is not finite. Format 1, of version 0.1, held two tensors
and the prompts, and is still read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipcond.condition.cache import checksum
from clipcond.diffusion.edits import Edit, Edited
from clipcond.diffusion.findings import PlacedFinding
from clipcond.diffusion.pipeline_view import PipelineView
from clipcond.diffusion.plan_documents import from_document, to_document
from clipcond.diffusion.timeline import Timeline
from clipcond.errors import ClipCondError, DataError, ModelError, ResourceMissing
from clipcond.files import write_file
from clipcond.prompt.operations import Operation, parse_operations
from clipcond.prompt.plan import PromptPlan, plan
from clipcond.wording import visible

FORMAT, FIRST_FORMAT = "clipcond.conditioning/2", "clipcond.conditioning/1"
_EDITED = ("prompt_embeds", "pooled_prompt_embeds")
_SETTINGS = ("family", "dialect", "clip_skip", "weighting", "chunking", "pooled", "lengths")
_NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_DAMAGE = (ClipCondError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConditioningRecord:
    """The content of a file.

    tensors: of the first variant.   settings: by name, JSON values.   taken: the tensors that the pipeline's call takes.
    arguments: its names of tensors, where they differ.   timeline, states: of a prompt that changes over the steps, with the
    tensors of each variant.
    """

    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    plans: tuple[PromptPlan, ...]
    negative_plans: tuple[PromptPlan, ...]
    other_plans: Mapping[str, tuple[PromptPlan, ...]] = field(default_factory=dict)
    findings: tuple[PlacedFinding, ...] = ()
    taken: frozenset[str] | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    operations: tuple[Operation, ...] = ()
    edited: Edited | None = None
    timeline: Timeline | None = None
    states: Sequence[Mapping[str, Tensor]] = ()


def write(path: str | Path, record: ConditioningRecord, *, overwrite: bool = False) -> None:
    """Write a file, complete or not at all.

    Raises OutputExists when the file is there already, unless `overwrite`; ResourceMissing when its folder is not;
    DataError for a tensor with a number that is not finite.
    """
    from safetensors.torch import save

    path = Path(path)
    if not path.parent.is_dir():
        raise ResourceMissing(f"there is no folder {path.parent}; make it, or choose another name")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _named_tensors(record).items()}
    # escaped by json: half of a surrogate pair in a prompt fits no UTF-8
    metadata = {"format": FORMAT, "conditioning": json.dumps(_document(record))}
    _check_finite(path, tensors)
    metadata["crc32"] = _checksum(metadata, tensors)
    write_file(
        path,
        save(tensors, metadata=metadata),
        overwrite=overwrite,
        otherwise="choose another name or ask for overwriting",
    )


def read(path: str | Path) -> ConditioningRecord:
    """Read a file that `write` wrote, with its tensors on the CPU.

    Raises ResourceMissing when there is no such file, DataError when it holds no conditioning, is damaged, or
    has a number in it that is not finite.
    """
    metadata, tensors = _content(Path(path))
    _check_whole(path, metadata, tensors)
    _check_numbers(path, tensors)
    _check_finite(path, tensors)
    with damage_named(path):
        return _OF_FORMAT[metadata["format"]](metadata, tensors)


@contextmanager
def damage_named(path: str | Path) -> Iterator[None]:
    """While open, errors of a damaged content become a DataError that names the file."""
    try:
        yield
    except _DAMAGE as error:
        raise DataError(f"{path} holds a damaged conditioning: {_reason(error)}; write it again") from error


def fitted(
    record: ConditioningRecord, pipeline: PipelineView, path: str | Path, *, force: bool = False
) -> ConditioningRecord:
    """Return a record with its tensors where a pipeline computes.

    Raises ModelError for a record of another family or of other encoders, unless `force`, and for tensors that the
    pipeline's call cannot take.
    """
    problem = None if force else _misfit(record, pipeline)
    if problem is not None:
        raise ModelError(f"{path} {problem}; encode the prompt again, or force it")
    if problem := _unusable(record, pipeline):
        raise ModelError(f"{path} {problem}; encode the prompt again")
    # other encoders may compute in another number format
    dtype = next(iter(pipeline.encoders.values())).dtype if force else None

    def moved(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        return {
            name: each.to(pipeline.device, dtype if each.is_floating_point() else None)
            for name, each in tensors.items()
        }

    edited = None if record.edited is None else replace(record.edited, **moved(_edited_tensors(record.edited)))
    states = tuple(moved(each) for each in record.states)
    return replace(record, tensors=moved(record.tensors), edited=edited, states=states)


def _misfit(record: ConditioningRecord, pipeline: PipelineView) -> str | None:
    family = record.settings["family"]
    if family != pipeline.family:
        return f"was made for family {family}, and {pipeline.name} is of {pipeline.family}"
    for encoder, each in pipeline.encoders.items():
        if encoder not in record.fingerprints:
            return f"does not say which {encoder} made it, so that it cannot be compared with that of {pipeline.name}"
        if record.fingerprints[encoder] != each.tower.fingerprint():
            return f"was made by another {encoder} than {pipeline.name} has (other weights, adapters or number format)"
    return None


def _unusable(record: ConditioningRecord, pipeline: PipelineView) -> str | None:
    """The reason why a pipeline's call cannot take the tensors at all, whoever made them."""
    pooled = "pooled_prompt_embeds" in record.tensors
    if pooled != bool(pipeline.layout.pooled):
        return f"holds {'a' if pooled else 'no'} pooled vector, and {pipeline.name} takes {'none' if pooled else 'one'}"
    denoisers = [getattr(pipeline.pipe, name, None) for name in ("unet", "transformer", "prior", "decoder")]
    denoiser = next((each for each in denoisers if each is not None), None)
    names = ("cross_attention_dim", "joint_attention_dim", "clip_text_in_channels")
    width = next(
        (each for name in names if (each := getattr(getattr(denoiser, "config", None), name, None)) is not None), None
    )
    own = record.tensors["prompt_embeds"].shape[-1]
    if isinstance(width, int) and width != own:
        return f"holds states that are {own} wide, and {pipeline.name} takes {width}"
    return None


# writing


def _named_tensors(record: ConditioningRecord) -> dict[str, Tensor]:
    """All tensors by the names that they have in the file."""
    named = dict(record.tensors)
    for number, state in enumerate(record.states[1:], start=1):
        named |= {f"{number}/{name}": tensor for name, tensor in state.items()}
    if record.edited is not None:
        named |= {f"edited/{name}": tensor for name, tensor in _edited_tensors(record.edited).items()}
    return named


def _edited_tensors(edited: Edited) -> dict[str, Tensor]:
    named = {name: getattr(edited, name) for name in _EDITED}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def _document(record: ConditioningRecord) -> dict[str, Any]:
    return {
        **record.settings,
        "plans": [to_document(each) for each in record.plans],
        "negative_plans": [to_document(each) for each in record.negative_plans],
        "other_plans": {name: [to_document(each) for each in plans] for name, plans in record.other_plans.items()},
        "findings": [asdict(found) for found in record.findings],
        "arguments": sorted(record.taken or ()),
        "names": dict(record.arguments),
        "fingerprints": dict(record.fingerprints),
        "operations": [str(each) for each in record.operations],
        "edits": None if record.edited is None else [[asdict(each) for each in own] for own in record.edited.edits],
        "schedule": None if record.timeline is None else _timeline_document(record.timeline),
    }


def _timeline_document(timeline: Timeline) -> dict[str, Any]:
    """In the words of format 2."""
    return {
        "steps": timeline.steps,
        "lasts": timeline.segment_ends,
        "runs": timeline.segments,
        "variants": timeline.prompts,
    }


# reading


def _content(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata of a known format, and all tensors on the CPU."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ResourceMissing(f"no conditioning at {path}: there is no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{path} is not a safetensors file ({_reason(error)}); expected what Conditioning.save wrote"
        ) from error
    found = metadata.get("format", "")
    if found in _OF_FORMAT:
        return metadata, tensors
    if found.startswith(FORMAT.partition("/")[0] + "/"):
        raise DataError(
            f"{path} is of format {found!r}, newer than {FORMAT!r}; a later clipcond wrote it, update to read it"
        )
    raise DataError(f"{path} holds no conditioning; expected a file that Conditioning.save or clipcond encode wrote")


def _checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    return str(checksum(tensors, f"{metadata['format']} {metadata['conditioning']}"))


def _check_whole(path: str | Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Raise DataError where a file of this format is not what was written, as far as its checksum shows."""
    if metadata["format"] != FORMAT:
        return
    if unknown := sorted(metadata.keys() - {"format", "conditioning", "crc32"}):  # a damaged name of the checksum's
        raise DataError(
            f"{path} holds a damaged conditioning: {visible(unknown[0])!r} is in its metadata; write it again"
        )
    if "crc32" in metadata and metadata["crc32"] != _checksum(metadata, tensors):
        raise DataError(f"{path} holds a damaged conditioning: its checksum does not fit its content; write it again")


def _check_numbers(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise DataError for states or pooled vectors of a kind of numbers that no encoder makes."""
    for name, tensor in tensors.items():
        if name.endswith("_embeds") and tensor.dtype not in _NUMBERS:
            kinds = [str(dtype).removeprefix("torch.") for dtype in (tensor.dtype, *_NUMBERS)]
            raise DataError(
                f"{path} holds a damaged conditioning: tensor {visible(name)} is of {kinds[0]}, expected"
                f" {', '.join(kinds[1:])}; write it again"
            )


def _check_finite(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataError(
                f"{path}: tensor {visible(name)} has a number that is not finite (NaN or infinity); encode the prompt again"
            )


def _second(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> ConditioningRecord:
    document = json.loads(metadata["conditioning"])
    timeline = None if document["schedule"] is None else _timeline(document["schedule"])
    own = {name: tensor for name, tensor in tensors.items() if "/" not in name}
    return ConditioningRecord(
        tensors=own,
        settings={name: document[name] for name in _SETTINGS},
        plans=tuple(from_document(each) for each in document["plans"]),
        negative_plans=tuple(from_document(each) for each in document["negative_plans"]),
        other_plans={
            name: tuple(from_document(each) for each in plans) for name, plans in document["other_plans"].items()
        },
        findings=tuple(PlacedFinding(**found) for found in document["findings"]),
        taken=frozenset(document["arguments"]),
        arguments=dict(document.get("names", {})),
        fingerprints=dict(document["fingerprints"]),
        operations=parse_operations(document.get("operations", ())),  # files of earlier versions have none
        edited=None if document["edits"] is None else _edited(document["edits"], tensors),
        timeline=timeline,
        states=() if timeline is None else _states(own, tensors, len(timeline.prompts)),
    )


def _states(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], count: int) -> tuple[Mapping[str, Tensor], ...]:
    """The tensors of each variant. Raises ValueError where they do not fit one another."""
    states: list[dict[str, Tensor]] = [dict(own), *({} for _ in range(count - 1))]
    for key, tensor in tensors.items():
        number, slash, name = key.partition("/")
        if slash and number != "edited":
            states[int(number)][name] = tensor
    if any(not state or any(each.shape != own[name].shape for name, each in state.items()) for state in states):
        raise ValueError("the tensors of its schedule do not fit one another")
    return tuple(states)


def _edited(documents: Sequence[Sequence[Mapping[str, Any]]], tensors: Mapping[str, Tensor]) -> Edited:
    if any(tensors[f"edited/{name}"].shape != tensors[name].shape for name in _EDITED if f"edited/{name}" in tensors):
        raise ValueError("the tensors of its edits do not fit the others")
    return Edited(
        prompt_embeds=tensors["edited/prompt_embeds"],
        pooled_prompt_embeds=tensors.get("edited/pooled_prompt_embeds"),
        edits=tuple(tuple(_edit(each) for each in own) for own in documents),
    )


def _edit(document: Mapping[str, Any]) -> Edit:
    spans = tuple(map(tuple, document["spans"]))
    return Edit(part=document["part"], spans=spans, options=tuple(document["options"]))


def _timeline(document: Mapping[str, Any]) -> Timeline:
    timeline = Timeline(
        steps=document["steps"],
        segment_ends=tuple(document["lasts"]),
        segments=tuple(document["runs"]),
        prompts=tuple(tuple(prompts) for prompts in document["variants"]),
    )
    if len(timeline.segment_ends) != len(timeline.segments) or not all(
        0 <= variant < len(timeline.prompts) for variant in timeline.segments
    ):
        raise ValueError("its schedule names variants that are not there")
    return timeline


def _first(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> ConditioningRecord:
    """Of version 0.1, which knew one encoder; the plans are made again from the prompts."""
    dialect, family = metadata["dialect"], metadata["family"]
    sides = [json.loads(metadata[side]) for side in ("prompt", "negative_prompt")]
    plans, negative_plans = (tuple(plan(each, dialect=dialect, family=family) for each in side) for side in sides)
    return ConditioningRecord(
        tensors={name: tensors[name] for name in ("prompt_embeds", "negative_prompt_embeds")},
        settings={"family": family, "dialect": dialect, "clip_skip": int(metadata["clip_skip"])},
        plans=plans,
        negative_plans=negative_plans,
    )


_OF_FORMAT = {FORMAT: _second, FIRST_FORMAT: _first}


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = f"{type(error).__name__} {text}" if isinstance(error, LookupError) else text
    return text if len(text) <= 160 else text[:159] + "…"
