"""Checks of a model before it is built and after its weights are in place: each a ModelError of one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from clipcond.errors import ClipCondError, ModelError, ResourceMissing
from clipcond.runtime.memory import machine_memory
from clipcond.wording import first_line, visible

MOST_LAYERS = 1000  # of a tower: the deepest that are published have some fifty
MOST_NUMBER = 1 << 24  # of any setting that is a count or a width
_DEPTHS = ("layers", "num_hidden_layers")


@contextmanager
def one_line_errors(spec: str) -> Iterator[None]:
    """Turn whatever a library raises into a ModelError of one line that no terminal is steered by."""
    try:
        yield
    except ResourceMissing:
        raise
    except ModelError as error:
        if str(error) == visible(str(error)):
            raise
        raise ModelError(visible(str(error))) from error
    except ClipCondError:
        raise
    except Exception as error:  # the libraries below raise many kinds; a user needs one line either way
        raise ModelError(f"model {visible(spec)!r} cannot be loaded: {first_line(error)}") from error


def check_numbers(where: str, config: object, name: str = "") -> None:
    """Refuse depths and widths that no model has, before a library loops over them."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            check_numbers(where, value, str(key))
    elif isinstance(config, (list, tuple)):
        for value in config:
            check_numbers(where, value, name)
    elif isinstance(config, (int, float)):
        most = MOST_LAYERS if name in _DEPTHS else MOST_NUMBER
        if not abs(config) <= most:
            raise ModelError(f"{where} has {name} {config}; expected at most {most:,}")


def outline(where: str, build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of a model by name, without building it.

    Raises ModelError if the config describes no model, or one that in float32 would not fit this machine's memory.
    """
    try:
        with torch.device("meta"):
            shapes = {name: tuple(value.shape) for name, value in build().state_dict().items()}
    except Exception as error:
        raise ModelError(f"{where} does not describe a model that can be built: {first_line(error)}") from error
    size, memory = 4 * count(shapes), machine_memory()
    if memory is not None and size > memory:
        raise ModelError(
            f"{where} describes a model of {size / 2**30:.1f} GiB, more than the {memory / 2**30:.1f} GiB of this machine"
        )
    return shapes


def count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the number of weights in all."""
    total = 0
    for shape in shapes.values():
        number = 1
        for side in shape:
            number *= side
        total += number
    return total


def check_shapes(
    weights: str, config: str, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse weights that are not those of the config: missing, unknown, or of another shape."""
    missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or unknown:
        wrong = f"lacks {missing[0]}" if missing else f"has the unknown {unknown[0]}"
        raise ModelError(f"{weights} does not fit {config}: it {wrong} ({len(missing) + len(unknown)} in all)")
    for name, shape in expected.items():
        if found[name] != shape:
            raise ModelError(
                f"{weights} does not fit {config}: size mismatch for {name}, which is {found[name]} and not {shape}"
            )


def check_finite_weights(spec: str, model: nn.Module) -> None:
    """Refuse a model with a NaN or an infinity in a weight, naming the first that has one."""
    bad = [name for name, value in model.state_dict().items() if not _finite(value)]
    if bad:
        raise ModelError(f"{spec} holds values that are not finite: {bad[0]} ({len(bad)} in all); load another copy")


def _finite(value: Tensor) -> bool:
    if not value.is_floating_point() or not value.numel() or value.is_meta:
        return True
    value = value.detach().float() if value.dtype.itemsize == 1 else value.detach()  # no kernel for 8-bit floats
    low, high = torch.aminmax(value)
    return bool(torch.isfinite(low) & torch.isfinite(high))
