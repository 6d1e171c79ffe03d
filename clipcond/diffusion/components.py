"""Components of a pipeline folder, each loaded with its library's report: no weight is missing, none is made up.

diffusers hands that report on to nobody: a file that lacks a weight, or has all of them under other names, would leave
random numbers in the pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clipcond.diffusion.pipeline_index import Component
from clipcond.errors import ModelError
from clipcond.models.checks import check_finite_weights, check_numbers, count
from clipcond.models.json_file import read_json
from clipcond.runtime.memory import machine_memory
from clipcond.wording import first_line, visible

MOST_BLOCKS = 8192  # of a component: the largest that are published have some hundred
_DEPTHS = (
    "layers_per_block",
    "num_decoder_layers",
    "num_hidden_layers",
    "num_layers",
    "num_single_layers",
    "transformer_layers_per_block",
)
_WEIGHTS = (".safetensors", ".bin")
_COMPUTED = ("position_ids",)  # stored by old versions; computed since
_DTYPE_SINCE = (4, 56)  # the version of transformers from which torch_dtype is dtype


def load_component(folder: Path, component: Component, dtype: torch.dtype) -> tuple[Any, tuple[str, ...]]:
    """Load a component that has weights or is of transformers.

    folder: of the pipeline.   dtype: of the weights.
    Returns it, None for others (a scheduler), which hold no code and no weights, and notes about weights that it has no
    place for. Raises ModelError, naming the component, for a config that claims more than its files hold, for weights that
    are missing or of another shape, and for numbers that are not finite.
    """
    kind = _class(component)
    place = folder / component.name if (folder / component.name).is_dir() else folder
    if not issubclass(kind, nn.Module):
        return (_from_transformers(kind, place) if component.library == "transformers" else None), ()
    _check_size(place, kind, dtype)
    model, report = _load(kind, place, dtype)
    notes = _check_report(place, component, report)
    check_finite_weights(str(place), model)
    return model, notes


def _class(component: Component) -> Any:
    """The class of a component; that of `stable_diffusion` stands among diffusers' pipelines."""
    import diffusers
    import transformers

    homes: Mapping[str, Any] = {"diffusers": diffusers, "transformers": transformers}
    home = homes.get(component.library) or getattr(diffusers.pipelines, component.library)
    kind = getattr(home, component.class_name, None)
    if not isinstance(kind, type) or not hasattr(kind, "from_pretrained"):
        raise ModelError(
            f"{component.name} is of class {component.class_name}, which {component.library} {_version(home)} has not"
        )
    return kind


def _version(module: Any) -> str:
    return str(getattr(module, "__version__", ""))


def _from_transformers(kind: Any, place: Path) -> Any:
    """A tokenizer or an image processor."""
    return kind.from_pretrained(str(place), trust_remote_code=False)


def _load(kind: Any, place: Path, dtype: torch.dtype) -> tuple[nn.Module, Mapping[str, Any]]:
    import transformers
    from diffusers import ModelMixin
    from diffusers.utils import is_accelerate_available

    old = issubclass(kind, ModelMixin) or tuple(map(int, transformers.__version__.split(".")[:2])) < _DTYPE_SINCE
    options: dict[str, Any] = {"torch_dtype" if old else "dtype": dtype}
    if _half_only(place):
        options["variant"] = "fp16"
    model, report = kind.from_pretrained(
        str(place),
        trust_remote_code=False,
        output_loading_info=True,
        low_cpu_mem_usage=is_accelerate_available(),
        **options,
    )
    return model, report


def _files(place: Path) -> list[Path]:
    return [path for path in sorted(place.iterdir()) if path.suffix in _WEIGHTS and path.is_file()]


def _half_only(place: Path) -> bool:
    """True if all weights are in files of the variant fp16."""
    names = [path.name for path in _files(place)]
    return bool(names) and all(".fp16." in name or ".fp16-" in name for name in names)


# what a config claims, before memory is taken for it


def _check_size(place: Path, kind: Any, dtype: torch.dtype) -> None:
    """Refuse a config of more weights than its files can hold or this machine can."""
    file = place / "config.json"
    if not file.is_file():
        return  # the library says so
    document = read_json(file)
    check_numbers(str(file), document)
    blocks = _blocks(document)
    if blocks > MOST_BLOCKS:
        raise ModelError(f"{file} describes a model of {blocks:,} blocks; expected at most {MOST_BLOCKS:,}")
    weights = _weights(file, kind, document)
    held = sum(path.stat().st_size for path in _files(place))
    quantized = "quantization_config" in document
    if held and weights > (4 if quantized else 1) * held:
        raise ModelError(f"{file} describes {weights:,} weights, but its files hold {held:,} bytes; load another copy")
    memory = machine_memory()
    if not quantized and memory is not None and weights * dtype.itemsize > memory:
        size, there = weights * dtype.itemsize / 2**30, memory / 2**30
        raise ModelError(f"{file} describes a model of {size:.1f} GiB, more than the {there:.1f} GiB of this machine")


def _blocks(document: Mapping[str, Any]) -> int:
    """The most blocks that the depths and lists of a config can come to."""
    depths = [_largest(value) for key, value in _settings(document) if key in _DEPTHS]
    longest = max((len(value) for _, value in _settings(document) if isinstance(value, list)), default=1)
    return prod(max(1, each) for each in depths) * max(1, longest)


def _settings(document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The settings of a config and of those inside it."""
    inner = [each for value in document.values() if isinstance(value, Mapping) for each in _settings(value)]
    return [*document.items(), *inner]


def _largest(value: object) -> int:
    if isinstance(value, list):
        return max(map(_largest, value), default=0)
    return int(value) if isinstance(value, (int, float)) else 0


def _weights(file: Path, kind: Any, document: Mapping[str, Any]) -> int:
    """The number of weights that a config describes, without memory for them."""
    try:
        with torch.device("meta"):
            model = (
                kind(kind.config_class.from_dict(dict(document)))
                if hasattr(kind, "config_class")
                else kind.from_config(dict(document))
            )
        return count({name: tuple(value.shape) for name, value in model.state_dict().items()})
    except Exception as error:  # whatever a library makes of a config
        raise ModelError(f"{file} describes no {kind.__name__} that can be built: {first_line(error)}") from error


# what became of the weights


def _check_report(place: Path, component: Component, report: Mapping[str, Any]) -> tuple[str, ...]:
    """Refuse a component that lacks a weight; return a note about weights that it has no place for."""
    named = f"{component.name} of {place.parent if place.name == component.name else place}"
    missing = sorted({*map(str, report["missing_keys"]), *map(str, report.get("mismatched_keys", ()))})
    unknown = sorted(str(key) for key in report.get("unexpected_keys", ()) if not str(key).endswith(_COMPUTED))
    if missing:
        instead = f"; it has {visible(unknown[0])} ({len(unknown)} in all) instead" if unknown else ""
        raise ModelError(
            f"{named} lacks {visible(missing[0])} ({len(missing)} {_plural('weight', missing)} in all){instead}; "
            "its numbers would be random: load another copy"
        )
    if not unknown:
        return ()
    return (
        f"{named} also holds {visible(unknown[0])} ({len(unknown)} {_plural('weight', unknown)} in all), which a "
        f"{component.class_name} has no place for; not used",
    )


def _plural(word: str, several: Sequence[object]) -> str:
    return word if len(several) == 1 else word + "s"
