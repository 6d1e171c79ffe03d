"""A conditioning as a file: safetensors, with everything that explains the tensors as metadata.

Format 2: tensors by the names of the pipeline's arguments; for a prompt that changes over the steps those of its further
variants as `1/prompt_embeds` and so on, for one with `.swap()` the edited side as `edited/prompt_embeds`. Metadata:
`format`, and `conditioning`, a JSON object with the plans of all texts, the findings, the settings, the schedule, the edits
and the fingerprints of the encoders. Format 1, of version 0.1, held two tensors and the prompts, and is still read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from clipcond.diffusion.conditioning import TENSORS, Conditioning, PlacedFinding
from clipcond.diffusion.plan_documents import from_document, to_document
from clipcond.diffusion.timeline import Timeline
from clipcond.diffusion.word_swaps import Edit, Edited
from clipcond.errors import ClipCondError, ConfigError, DataError, ModelError, ResourceMissing
from clipcond.files import write_file
from clipcond.prompt.plan import plan

if TYPE_CHECKING:
    from clipcond.diffusion.conditioner import Conditioner
    from clipcond.diffusion.pipeline_view import PipelineView

FORMAT, FIRST_FORMAT = "clipcond.conditioning/2", "clipcond.conditioning/1"
_EDITED = ("prompt_embeds", "pooled_prompt_embeds")
_SETTINGS = ("family", "dialect", "clip_skip", "weighting", "chunking", "pooled", "lengths")


def save(conditioning: Conditioning, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a file, complete or not at all.

    Raises OutputExists when the file is there already, unless `overwrite`; ResourceMissing when its folder is not.
    """
    from safetensors.torch import save as packed

    path = Path(path)
    if not path.parent.is_dir():
        raise ResourceMissing(f"there is no folder {path.parent}; make it, or choose another name")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(conditioning).items()}
    # escaped by json: half of a surrogate pair in a prompt fits no UTF-8
    metadata = {"format": FORMAT, "conditioning": json.dumps(_document(conditioning))}
    write_file(
        path,
        packed(tensors, metadata=metadata),
        overwrite=overwrite,
        otherwise="choose another name or ask for overwriting",
    )


def load(path: str | Path, *, conditioner: Conditioner | None = None, force: bool = False) -> Conditioning:
    """Read a file that `save` wrote.

    conditioner: of the pipeline that the conditioning is for; its family and its encoders are compared with those that
    made the file, and the tensors are put where it computes. Without one they are on the CPU and nothing is compared.
    Raises ResourceMissing when there is no such file, DataError when it holds no conditioning or is damaged, ModelError
    when it was made by another family or by other encoders, unless `force`, and when the pipeline's call cannot take its
    tensors, ConfigError when its prompt changes over the steps and there is no conditioner.
    """
    path = Path(path)
    metadata, tensors = _read(path)
    try:
        found = _OF_FORMAT[metadata["format"]](metadata, tensors)
    except _DAMAGE as error:
        raise DataError(f"{path} holds a damaged conditioning: {_reason(error)}; write it again") from error
    if conditioner is not None:
        return _for(found, path, conditioner, force)
    if found.times is not None:
        raise ConfigError(f"the prompt of {path} changes over the steps; load it with the pipeline that is to use it")
    return found.conditioning


_DAMAGE = (ClipCondError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What a file holds: the conditioning without its callback, and what that is made of."""

    conditioning: Conditioning
    times: Timeline | None = None
    states: tuple[Mapping[str, Tensor], ...] = ()  # of each variant


def _tensors(conditioning: Conditioning) -> dict[str, Tensor]:
    """All tensors by the names that they have in the file."""
    found = conditioning.tensors
    states = () if conditioning.callback is None else conditioning.callback.states
    for number, own in enumerate(states[1:], start=1):
        found |= {f"{number}/{name}": tensor for name, tensor in own.items()}
    if conditioning.edited is not None:
        named = {name: getattr(conditioning.edited, name) for name in _EDITED}
        found |= {f"edited/{name}": tensor for name, tensor in named.items() if tensor is not None}
    return found


def _document(conditioning: Conditioning) -> dict[str, Any]:
    return {
        **{name: getattr(conditioning, name) for name in _SETTINGS},
        "plans": [to_document(each) for each in conditioning.plans],
        "negative_plans": [to_document(each) for each in conditioning.negative_plans],
        "other_plans": {name: [to_document(each) for each in own] for name, own in conditioning.other_plans.items()},
        "findings": [asdict(found) for found in conditioning.findings],
        "arguments": sorted(conditioning.kwargs),
        "fingerprints": dict(conditioning.fingerprints),
        "edits": None
        if conditioning.edited is None
        else [[asdict(each) for each in own] for own in conditioning.edited.edits],
        "schedule": None if conditioning.callback is None else asdict(conditioning.callback.times),
    }


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
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


def _second(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> _Found:
    document = json.loads(metadata["conditioning"])
    own: dict[str, Any] = {name: tensors[name] for name in TENSORS if name in tensors}
    conditioning = Conditioning(
        **own,
        **{name: document[name] for name in _SETTINGS},
        plans=tuple(from_document(each) for each in document["plans"]),
        negative_plans=tuple(from_document(each) for each in document["negative_plans"]),
        other_plans={
            name: tuple(from_document(each) for each in plans) for name, plans in document["other_plans"].items()
        },
        findings=tuple(PlacedFinding(**found) for found in document["findings"]),
        takes=frozenset(document["arguments"]),
        fingerprints=dict(document["fingerprints"]),
        edited=_edited(document["edits"], tensors),
    )
    if document["schedule"] is None:
        return _Found(conditioning)
    times = _timeline(document["schedule"])
    states: list[dict[str, Tensor]] = [own, *({} for _ in times.variants[1:])]
    for key, tensor in tensors.items():
        number, slash, name = key.partition("/")
        if slash and number != "edited":
            states[int(number)][name] = tensor
    if any(not state or any(each.shape != own[name].shape for name, each in state.items()) for state in states):
        raise ValueError("the tensors of its schedule do not fit one another")
    return _Found(conditioning, times, tuple(states))


def _edited(documents: list[list[dict[str, Any]]] | None, tensors: Mapping[str, Tensor]) -> Edited | None:
    if documents is None:
        return None
    edits = tuple(
        tuple(
            Edit(part=each["part"], spans=tuple(map(tuple, each["spans"])), options=tuple(each["options"]))
            for each in own
        )
        for own in documents
    )
    return Edited(
        prompt_embeds=tensors["edited/prompt_embeds"],
        pooled_prompt_embeds=tensors.get("edited/pooled_prompt_embeds"),
        edits=edits,
    )


def _timeline(document: Mapping[str, Any]) -> Timeline:
    variants = tuple(tuple(texts) for texts in document["variants"])
    times = Timeline(
        steps=document["steps"], lasts=tuple(document["lasts"]), runs=tuple(document["runs"]), variants=variants
    )
    if len(times.lasts) != len(times.runs) or not all(0 <= run < len(variants) for run in times.runs):
        raise ValueError("its schedule names variants that are not there")
    return times


def _first(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> _Found:
    """Of version 0.1, which knew one encoder; the plans are made again from the prompts."""
    dialect, family = metadata["dialect"], metadata["family"]
    sides = [json.loads(metadata[side]) for side in ("prompt", "negative_prompt")]
    plans, negative_plans = (tuple(plan(each, dialect=dialect, family=family) for each in side) for side in sides)
    return _Found(
        Conditioning(
            prompt_embeds=tensors["prompt_embeds"],
            negative_prompt_embeds=tensors["negative_prompt_embeds"],
            plans=plans,
            negative_plans=negative_plans,
            family=family,
            dialect=dialect,
            clip_skip=int(metadata["clip_skip"]),
        )
    )


_OF_FORMAT = {FORMAT: _second, FIRST_FORMAT: _first}


def _for(found: _Found, path: Path, conditioner: Conditioner, force: bool) -> Conditioning:
    """The conditioning for one pipeline, or the reason why it is for another."""
    problem = None if force else _misfit(found.conditioning, conditioner)
    if problem is not None:
        raise ModelError(f"{path} {problem}; encode the prompt again, or force it")
    loading = conditioner.loading
    if problem := _unusable(found.conditioning, loading):
        raise ModelError(f"{path} {problem}; encode the prompt again")
    # other encoders may compute in another number format
    dtype = next(iter(loading.encoders.values())).tower.dtype if force else None

    def moved(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        return {
            name: each.to(loading.device, dtype if each.is_floating_point() else None) for name, each in tensors.items()
        }

    own = replace(found.conditioning, **moved(found.conditioning.tensors), takes=loading.takes)
    if own.edited is not None:
        named = {name: getattr(own.edited, name) for name in _EDITED}
        there = {name: tensor for name, tensor in named.items() if tensor is not None}
        own = replace(own, edited=replace(own.edited, **moved(there)))
    if found.times is None:
        return own
    from clipcond.diffusion.step_callback import StepCallback  # imports diffusers

    return replace(own, callback=StepCallback(loading.pipe, found.times, [moved(state) for state in found.states]))


def _misfit(loaded: Conditioning, conditioner: Conditioner) -> str | None:
    name = conditioner.loading.name
    if loaded.family != conditioner.family:
        return f"was made for family {loaded.family}, and {name} is of {conditioner.family}"
    for encoder, each in conditioner.loading.encoders.items():
        if encoder not in loaded.fingerprints:
            return f"does not say which {encoder} made it, so that it cannot be compared with that of {name}"
        if loaded.fingerprints[encoder] != each.tower.fingerprint():
            return f"was made by another {encoder} than {name} has (other weights, adapters or number format)"
    return None


def _unusable(loaded: Conditioning, loading: PipelineView) -> str | None:
    """Why the call of a pipeline cannot take the tensors at all, whoever made them."""
    pooled = loaded.pooled_prompt_embeds is not None
    if pooled != bool(loading.shape.pooled):
        return f"holds {'a' if pooled else 'no'} pooled vector, and {loading.name} takes {'none' if pooled else 'one'}"
    denoiser = getattr(loading.pipe, "unet", None) or loading.pipe.transformer
    names = ("cross_attention_dim", "joint_attention_dim")
    width = next((each for name in names if (each := getattr(denoiser.config, name, None)) is not None), None)
    own = loaded.prompt_embeds.shape[-1]
    if isinstance(width, int) and width != own:
        return f"holds states that are {own} wide, and {loading.name} takes {width}"
    return None


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = f"{type(error).__name__} {text}" if isinstance(error, LookupError) else text
    return text if len(text) <= 160 else text[:159] + "…"
