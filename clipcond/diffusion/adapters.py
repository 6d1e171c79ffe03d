"""`<lora:name:0.8>` in a prompt, and the explicit call that gives it to the pipeline.

    out = conditioner("a fox <lora:ink:0.8>", dialect="a1111")      # the tag is no text; the plan lists it
    load_adapters(pipe, adapters_of(out), "loras")
    out = conditioner("a fox <lora:ink:0.8>", dialect="a1111")      # again: the text encoder may have changed
    pipe(**out.kwargs)

Conditioning never changes a pipeline; this does. It can be called before anything is encoded:
`load_adapters(pipe, plan(prompt, dialect="a1111").adapters, folder)`.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from clipcond.diffusion import cloneofsimo
from clipcond.errors import ConfigError, DataError, ModelError, ResourceMissing
from clipcond.prompt.items import Adapter
from clipcond.prompt.plan import PromptPlan
from clipcond.runtime.quiet import quiet_calls
from clipcond.wording import first_line, visible

SUFFIXES = (".safetensors", ".pt", ".bin", ".ckpt")
_KINDS = ("lora", "lyco")
_SIDES = ("lora_A", "lora_B")
_SECOND = ".text_encoder"  # cloneofsimo's .pt files come in two: name.pt and name.text_encoder.pt


class HasPlans(Protocol):
    """A Conditioning, or anything else with the plans of both sides."""

    @property
    def plans(self) -> Sequence[PromptPlan]: ...

    @property
    def negative_plans(self) -> Sequence[PromptPlan]: ...


def adapters_of(conditioning: HasPlans) -> tuple[Adapter, ...]:
    """The adapters that all prompts of a conditioning ask for, those of the negative prompt with its prompt's.

    A pipeline has one weight of an adapter for the whole batch. Raises ConfigError where prompts want different ones.
    """
    negatives: Sequence[PromptPlan | None] = conditioning.negative_plans or [None] * len(conditioning.plans)
    wanted = [
        merge([*planned.adapters, *(negative.adapters if negative else ())])
        for planned, negative in zip(conditioning.plans, negatives, strict=True)
    ]
    for number, adapters in enumerate(wanted[1:], start=1):
        theirs, ours = ({each.name: _weights(each) for each in side} for side in (wanted[0], adapters))
        for name in dict.fromkeys([*theirs, *ours]):
            if theirs.get(name) != ours.get(name):
                raise ConfigError(
                    f"adapter {name!r} has {_described(theirs.get(name))} in prompt 0 and {_described(ours.get(name))} in prompt "
                    f"{number}; a batch has one for all: make the pictures in two calls"
                )
    return wanted[0] if wanted else ()


def merge(adapters: Iterable[Adapter]) -> tuple[Adapter, ...]:
    """Each adapter once, in the order of first mention. Raises ConfigError for one that has two different weights."""
    known: dict[str, Adapter] = {}
    for adapter in adapters:
        if not all(map(isfinite, _weights(adapter))):
            raise ConfigError(f"adapter {adapter.name!r} has {_described(_weights(adapter))}, expected a finite one")
        first = known.setdefault(adapter.name, adapter)
        if _weights(first) != _weights(adapter):
            raise ConfigError(
                f"adapter {adapter.name!r} has {_described(_weights(first))} and {_described(_weights(adapter))} in one prompt; "
                "give it one"
            )
    return tuple(known.values())


def load_adapters(pipe: Any, adapters: Iterable[Adapter], folder: str | Path) -> tuple[str, ...]:
    """Make exactly these adapters active in a pipeline, each file loaded once, whenever this was called before.

    pipe: changed: its U-Net or transformer, and its text encoders where the file has weights for them; what was encoded
    before may be out of date. Other adapters stay loaded and inactive; with none named, all are off.
    adapters: `PromptPlan.adapters`, or `adapters_of(conditioning)`.   folder: of files `name.safetensors`, `.pt`, `.bin`,
    `.ckpt`, in it or below; files of cloneofsimo's first format are converted.
    Returns the names under which the pipeline knows them. Raises ModelError for a pipeline without LoRA loading or
    without peft, ResourceMissing naming the nearest file, DataError for a file that cannot be loaded or does not fit,
    ConfigError for a kind of adapter that is no LoRA and for one adapter with two weights.
    """
    wanted = merge(adapters)
    _check_pipeline(pipe, wanted)
    files = [(adapter, find(adapter.name, folder)) for adapter in wanted]
    names = []
    for adapter, paths in files:
        name = _name_for(adapter.name, paths)
        if name not in _loaded(pipe):
            _load(pipe, name, paths)
        names.append(name)
    if names:
        pipe.enable_lora()
        pipe.set_adapters(names, adapter_weights=[_of_parts(pipe, adapter) for adapter in wanted])
    elif _loaded(pipe):
        pipe.disable_lora()
    return tuple(names)


def find(name: str, folder: str | Path) -> tuple[Path, ...]:
    """The file of an adapter in a folder and the folders below; two where cloneofsimo's text encoder has its own.

    Raises ResourceMissing, with the nearest name that there is.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResourceMissing(f"{folder}: no such folder; give the one that the adapter {name!r} is in")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    files.sort(key=lambda path: SUFFIXES.index(path.suffix.lower()))
    by_stem: dict[str, Path] = {}
    for path in files:
        by_stem.setdefault(path.stem, path)
    found = tuple(by_stem[stem] for stem in (name, name + _SECOND) if stem in by_stem)
    if not found:
        near = difflib.get_close_matches(name, by_stem, n=1, cutoff=0.0)
        there = f"the nearest is {near[0]!r}" if near else "there is none at all"
        raise ResourceMissing(f"no adapter {name!r} in {folder}; {there} ({', '.join(SUFFIXES)})")
    return found


def active_adapters(pipe: Any) -> frozenset[str]:
    """Return the names of the adapters that change what a pipeline does at the moment."""
    return frozenset(name for _, _, name in _active_layers(pipe))


def is_active(adapter: Adapter, names: Iterable[str]) -> bool:
    """True if one of the names is an adapter's own, or the one that `load_adapters` gave it."""
    given = re.compile(re.escape(_plain(adapter.name)) + "_[0-9a-f]{8}")
    return any(name in (adapter.name, _plain(adapter.name)) or given.fullmatch(name) for name in names)


def check_adapters_finite(pipe: Any) -> None:
    """Raise ModelError, naming part and tensor, where an active adapter of a pipeline would make black pictures."""
    for place, layer, name in _active_layers(pipe):
        for side in _SIDES:
            for key, weight in getattr(layer, side)[name].named_parameters():
                if not weight.is_meta and not bool(torch.isfinite(weight).all()):
                    raise ModelError(
                        f"adapter {name!r} has a number that is not finite (NaN or infinity) in {place}.{side}.{key}; "
                        f"take it off with pipe.delete_adapters({name!r})"
                    )


def _active_layers(pipe: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield the layers of a pipeline's parts that an active adapter changes: place, layer and the adapter's name."""
    for part in getattr(pipe, "_lora_loadable_modules", ()):
        model = getattr(pipe, part, None)
        for place, layer in model.named_modules() if model is not None else ():
            if all(hasattr(layer, side) for side in _SIDES) and not layer.disable_adapters:
                yield from ((f"{part}.{place}", layer, name) for name in layer.active_adapters if name in layer.lora_A)


def _check_pipeline(pipe: Any, adapters: Sequence[Adapter]) -> None:
    name = type(pipe).__name__
    for adapter in adapters:
        if adapter.kind not in _KINDS:
            raise ConfigError(f"adapter {adapter.name!r} is a {adapter.kind}, expected one of {', '.join(_KINDS)}")
    if not (hasattr(pipe, "load_lora_weights") and hasattr(pipe, "set_adapters")):
        raise ModelError(
            f"{name} loads no LoRA (it has no load_lora_weights); take the adapter's tag out of the prompt"
        )
    from diffusers.utils import USE_PEFT_BACKEND

    if not USE_PEFT_BACKEND:
        raise ModelError(f"{name} needs the package peft for adapters; install clipcond[lora]")


def _loaded(pipe: Any) -> set[str]:
    return {name for names in pipe.get_list_adapters().values() for name in names}


def _name_for(name: str, paths: Sequence[Path]) -> str:
    """A name that says which content it is: of the adapter and of its files as they are now."""
    stamps = [(str(path.resolve()), (stat := path.stat()).st_mtime_ns, stat.st_size) for path in paths]
    return f"{_plain(name)}_{hashlib.sha256(repr(stamps).encode()).hexdigest()[:8]}"


def _plain(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z]+", "_", name)


def _load(pipe: Any, name: str, paths: Sequence[Path]) -> None:
    """Give a pipeline the weights of an adapter's files under one name."""
    weights: dict[str, Any] = {}
    for path in paths:
        try:
            document = cloneofsimo.load_document(path)
            _check_tensors(path, document)
            pairs = cloneofsimo.pairs_of(document)
            if pairs is not None:
                weights |= cloneofsimo.convert(pairs, pipe)
            elif isinstance(document, dict):
                weights |= document
            else:
                raise DataError(f"a {type(document).__name__}, expected named tensors")
        except Exception as error:  # whatever the libraries below raise: one line, with the original as its cause
            raise DataError(f"{path} cannot be loaded as a LoRA: {first_line(error)}") from error
    try:
        with quiet_calls():  # it says at length which parts of the pipeline a file has nothing for
            pipe.load_lora_weights(weights, adapter_name=name)
    except Exception as error:
        if name in _loaded(pipe):  # some part of the pipeline took it before another failed
            pipe.delete_adapters(name)
        raise DataError(f"{paths[0]} cannot be loaded into this {type(pipe).__name__}: {first_line(error)}") from error
    if name not in _loaded(pipe):
        raise DataError(f"{paths[0]} holds nothing for this {type(pipe).__name__}; it was made for another model")


def _check_tensors(path: Path, document: object) -> None:
    """Raise DataError where tensors claim more numbers than the file holds, and where one is not finite."""
    named = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    tensors = [(str(key), value) for key, value in named if isinstance(value, Tensor)]
    claimed, held = sum(tensor.nbytes for _, tensor in tensors), path.stat().st_size
    if claimed > held:  # strides of 0, or many views of one storage
        largest, tensor = max(tensors, key=lambda each: each[1].nbytes)
        raise DataError(
            f"its tensors claim {claimed:,} bytes where the file has {held:,}; the largest is {visible(largest)} of "
            f"{tuple(tensor.shape)}"
        )
    for key, tensor in tensors:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataError(f"tensor {visible(key)} has a number that is not finite (NaN or infinity)")


def _weights(adapter: Adapter) -> tuple[float, float]:
    """Of the text encoders and of the denoiser."""
    return adapter.weight, adapter.weight if adapter.unet_weight is None else adapter.unet_weight


def _of_parts(pipe: Any, adapter: Adapter) -> float | dict[str, float]:
    """The weight as `set_adapters` takes it: one, or one for each part of the pipeline."""
    encoders, denoiser = _weights(adapter)
    if encoders == denoiser:
        return denoiser
    return {part: encoders if "text_encoder" in part else denoiser for part in pipe._lora_loadable_modules}


def _described(weights: tuple[float, float] | None) -> str:
    if weights is None:
        return "no tag"
    return f"weight {' and '.join(f'{each:g}' for each in dict.fromkeys(weights))}"
