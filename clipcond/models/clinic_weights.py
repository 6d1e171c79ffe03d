"""Names of the differences between two encoders' weights, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_POSITIONS, _NORM = "text_model.embeddings.position_embedding.weight", "text_model.final_layer_norm"
_UNRELATED = 0.5  # cosine below which a tensor is no change of the other
_MOST = 0.8  # of the changed matrices that must agree on a cause
_FLOATS = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
_LEVELS = 256  # of an 8-bit grid


@dataclass(frozen=True, slots=True)
class WeightChange:
    """A cause by name, with its evidence in one line."""

    name: str
    evidence: str


def name_weight_changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[WeightChange]:
    """Return the causes of the differences between weights in nested names, none for equal ones.

    Weights that one of the two lacks (of further layers) are left out, and position tables of different lengths, which
    differ by that; of token tables of different lengths the common rows are compared.
    """
    pairs = {name: _common(before[name], after[name]) for name in before.keys() & after.keys()}
    if _POSITIONS in pairs and len(before[_POSITIONS]) != len(after[_POSITIONS]):
        del pairs[_POSITIONS]
    changed = {
        name: pair for name, pair in sorted(pairs.items()) if pair[0].shape == pair[1].shape and not torch.equal(*pair)
    }
    found = []
    for rule in (_other, _shifted, _final_norm, _swapped, _half_loaded, _quantised, _low_rank, _retrained):
        if not changed:
            break
        cause, explained = rule(changed, before, len(pairs))
        if cause is not None:
            found.append(cause)
            changed = {name: pair for name, pair in changed.items() if name not in explained}
    return found


Pairs = Mapping[str, tuple[Tensor, Tensor]]
Answer = tuple[WeightChange | None, Iterable[str]]
_NONE: Answer = (None, ())


def _common(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    rows = min(len(before), len(after)) if before.ndim else 0
    return (before[:rows].float(), after[:rows].float()) if before.ndim else (before.float(), after.float())


def _cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.flatten().double(), b.flatten().double()
    lengths = a.norm() * b.norm()
    return float(a @ b / lengths) if lengths > 0 else 0.0


def _matrices(changed: Pairs) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: pair for name, pair in changed.items() if pair[0].ndim == 2}


def _short(names: Iterable[str]) -> str:
    listed = sorted(name.removeprefix("text_model.").removesuffix(".weight") for name in names)
    return f"{listed[0]}" + (f" and {len(listed) - 1} more" if len(listed) > 1 else "")


def _other(changed: Pairs, before: Mapping[str, Tensor], count: int) -> Answer:
    """Nothing of it is related to what was."""
    matrices = _matrices(changed)
    unrelated = [name for name, pair in matrices.items() if abs(_cosine(*pair)) < _UNRELATED]
    if len(changed) < count * _MOST or len(unrelated) < len(matrices) or len(matrices) < 6:
        return _NONE
    return WeightChange("another encoder", f"all {len(matrices)} matrices are unrelated to those before"), list(changed)


def _shifted(changed: Pairs, before: Mapping[str, Tensor], count: int) -> Answer:
    """Positions moved by some rows."""
    if _POSITIONS not in changed:
        return _NONE
    was, now = changed[_POSITIONS]
    for step in [each for size in range(1, min(9, len(was))) for each in (size, -size)]:
        rows = slice(max(0, -step), len(was) - max(0, step))
        if torch.allclose(now[rows], was[max(0, step) : len(was) - max(0, -step)], atol=1e-6):
            return WeightChange("positions", f"row i of the position table is row i{step:+d} of that before"), [
                _POSITIONS
            ]
    return _NONE


def _final_norm(changed: Pairs, before: Mapping[str, Tensor], count: int) -> Answer:
    """A final norm that does nothing but normalise."""
    names = [name for name in (f"{_NORM}.weight", f"{_NORM}.bias") if name in changed]
    plain = {"weight": 1.0, "bias": 0.0}
    if not names or not all(bool((changed[name][1] == plain[name.rpartition(".")[2]]).all()) for name in names):
        return _NONE
    rest = [name for name in changed if name not in names]
    norms = [
        name
        for name in rest
        if "layer_norm" in name and bool((changed[name][1] == plain[name.rpartition(".")[2]]).all())
    ]
    if norms:  # other norms stand at their beginnings too: half loaded
        return _NONE
    return WeightChange("final norm", "the final norm has ones and zeros in place of its learned numbers"), names


def _swapped(changed: Pairs, before: Mapping[str, Tensor], count: int) -> Answer:
    """Weights under one another's names, or turned over."""
    moved = {}
    for name, (was, now) in changed.items():
        if was.ndim == 2 and was.shape[0] == was.shape[1] and torch.equal(now, was.T):
            moved[name] = f"{_short([name])} is transposed"
        elif (twin := _twin(name, now, before)) is not None:
            moved[name] = f"{_short([name])} is {_short([twin])} of before"
    if not moved:
        return _NONE
    first = next(iter(moved.values()))
    return WeightChange("swapped weights", first + (f", and {len(moved) - 1} more" if len(moved) > 1 else "")), moved


def _twin(name: str, now: Tensor, before: Mapping[str, Tensor]) -> str | None:
    """The name under which a weight stood before, None for one that is new, or is one number throughout."""
    start = now.flatten()[:32]
    if now.numel() < 2 or bool((now == start[0]).all()):
        return None
    for other, value in before.items():
        alike = other != name and value.shape == now.shape and torch.equal(value.flatten()[:32].float(), start)
        if alike and torch.equal(value.float(), now):
            return other
    return None


def _half_loaded(changed: Pairs, before: Mapping[str, Tensor], count: int) -> Answer:
    """Some weights unrelated to what was, the rest as it was."""
    fresh = [name for name, (was, now) in changed.items() if abs(_cosine(was, now)) < _UNRELATED or _initial(name, now)]
    if not fresh:
        return _NONE
    zeros = sum(not bool(changed[name][1].any()) for name in fresh)
    kind = f" ({zeros} of them zeros)" if zeros else ""
    return WeightChange(
        "half loaded", f"{len(fresh)} of {count} weights are unrelated to those before{kind}: {_short(fresh)}"
    ), fresh


def _initial(name: str, value: Tensor) -> bool:
    """True if a bias or norm stands as it is initialised."""
    if value.ndim != 1:
        return False
    return bool((value == (1.0 if "norm" in name and name.endswith("weight") else 0.0)).all())


def _quantised(changed: Pairs, before: Mapping[str, Tensor], count: int) -> Answer:
    """Weights rounded to a coarser type or to a grid."""
    matrices = _matrices(changed)
    if not matrices:
        return _NONE
    grids = {name: grid for name, pair in matrices.items() if (grid := _grid(*pair)) is not None}
    if len(grids) < _MOST * len(matrices):
        return _NONE
    kinds = sorted(set(grids.values()), key=list(grids.values()).count)
    error = max(_off(*matrices[name]) for name in grids)
    rounded = [n for n, (was, now) in changed.items() if was.ndim < 2 and _float_of(was, now) is not None]
    rounded += [name for name, pair in matrices.items() if name not in grids and _off(*pair) <= error]
    return (
        WeightChange(
            "quantised", f"{len(grids)} matrices are those before rounded to {kinds[-1]}, {error:.2%} off at most"
        ),
        [*grids, *rounded],
    )


def _off(was: Tensor, now: Tensor) -> float:
    """The distance of a weight from what it was, in units of its norm."""
    return float((now - was).norm() / was.norm().clamp_min(1e-12))


def _grid(was: Tensor, now: Tensor) -> str | None:
    """The type or grid that a matrix was rounded to, in words; None if it was not."""
    if (name := _float_of(was, now)) is not None:
        return name
    if _off(was, now) > 0.5:
        return None
    for size in dict.fromkeys((now.shape[1], 128, 64, 32, 16)):
        if now.shape[1] % size:
            continue
        groups = now.reshape(-1, size)
        sample = groups[:: max(1, len(groups) // 24)][:24]
        sample = sample[sample.abs().amax(dim=1) > 0]
        levels = [_levels(group) for group in sample]
        if levels and sum(each is not None for each in levels) >= _MOST * len(levels):
            most = max(each for each in levels if each is not None)
            return f"{4 if most <= 16 else 8} bits in groups of {size}"
    return None


def _float_of(was: Tensor, now: Tensor) -> str | None:
    """The float type that one tensor is the other's rounding to; None if there is none."""
    for name in _FLOATS:
        if torch.equal(was.to(getattr(torch, name)).float(), now):
            return name
    return None


def _levels(group: Tensor) -> int | None:
    """The number of steps of the even grid that all values of a group lie on, or of their different values if few."""
    values = torch.unique(group.double())
    if len(values) <= min(16, len(group) // 3):
        return 16
    steps = values.diff()
    smallest, reach = float(steps.min()), float(values[-1] - values[0])
    for part in (1, 2, 3, 4):
        step = smallest / part
        if reach / step > _LEVELS:
            return None
        places = (values - values[0]) / step
        if float((places - places.round()).abs().max()) < 0.02:
            return round(reach / step)
    return None


def _low_rank(changed: Pairs, before: Mapping[str, Tensor], count: int) -> Answer:
    """Changes that a LoRA of small rank explains."""
    matrices = {name: pair for name, pair in _matrices(changed).items() if "embedding" not in name}
    ranks = {name: _rank(now - was) for name, (was, now) in matrices.items()}
    low = {name: rank for name, rank in ranks.items() if rank <= min(matrices[name][0].shape) // 4}
    if not matrices or len(low) < _MOST * len(changed):
        return _NONE
    return WeightChange(
        "low-rank change",
        f"{len(low)} matrices changed by a matrix of rank {max(low.values())} at most, as a merged LoRA does",
    ), low


def _rank(change: Tensor) -> int:
    """The number of singular values that hold all but a millionth of the change."""
    energy = torch.linalg.svdvals(change.float()).double().square()
    share = energy.cumsum(0) / energy.sum().clamp_min(1e-30)
    return int((share < 1 - 1e-6).sum()) + 1


def _retrained(changed: Pairs, before: Mapping[str, Tensor], count: int) -> Answer:
    moved = {name: _off(*pair) for name, pair in changed.items()}
    most = max(moved, key=lambda name: moved[name])
    return WeightChange(
        "retrained", f"{len(moved)} of {count} weights moved, {_short([most])} most, by {moved[most]:.2%}"
    ), list(changed)
