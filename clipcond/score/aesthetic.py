"""Aesthetic heads: a score that is linear in a picture's unit vector, folded to one weight vector and one bias.

LAION's v1 heads are linear; v2 (improved-aesthetic-predictor) and v2.5 (aesthetic-predictor-v2-5) are five linear
layers with nothing but dropout between them, so they fold exactly. A head fits one tower: on another one's vectors its
numbers mean nothing, so it refuses them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from clipcond.errors import ConfigError, ModelError
from clipcond.score.checks import finite, unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

FORMAT = "clipcond.aesthetic_head"  # in the metadata of a head that clipcond wrote
_B32 = ("ViT-B-32/openai", "ViT-B-32-quickgelu/openai", "hf:openai/clip-vit-base-patch32")
_B16 = ("ViT-B-16/openai", "ViT-B-16-quickgelu/openai", "hf:openai/clip-vit-base-patch16")
_L14 = ("ViT-L-14/openai", "ViT-L-14-quickgelu/openai", "hf:openai/clip-vit-large-patch14")
_SO400M = ("hf:google/siglip-so400m-patch14-384", "ViT-SO400M-14-SigLIP-384/webli")
_V1 = {  # digest of the numbers: the same from whatever file they come
    "dba6421aa35c4489": _B32,
    "3b14437801659a25": _B16,
    "3f61d2e577540bb2": _L14,
}
_TAIL = (1024, 128, 64, 16, 1)  # widths of v2 and v2.5 after the embedding's
_LAYER = re.compile(r"(?:(?P<prefix>.*)\.)?(?P<number>\d{1,4})\.(?P<part>weight|bias)")
_SINGLE = re.compile(r"(?:.*\.)?(?P<part>weight|bias)")
_LOCAL = (".", "/", "~", "hf:.", "hf:/", "hf:~")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AestheticHead:
    """A linear head on unit vectors of an image tower.

    weight: (P,) float64, a read-only copy.   towers: names of the models whose vectors it takes; empty where nobody said.
    metadata: names and values that came with it, such as its cross-validated accuracy.
    """

    name: str
    weight: NDArray[np.float64]
    bias: float
    towers: tuple[str, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        own = np.array(self.weight, dtype=np.float64)
        own.flags.writeable = False
        object.__setattr__(self, "weight", own)

    def scores(self, images: Numbers, *, tower: str) -> NDArray[np.float64]:
        """weight · image + bias, (N,) float64.

        images: (N, P) vectors of the model `tower`, made unit length.   Raises ConfigError for a tower that the head was
        not made for: another width, or a name known to be another's.
        """
        rows = finite(f"{self.name}: images", images)
        width = rows.shape[-1] if rows.ndim == 2 else 0
        self.check_tower(tower, width)
        return unit_rows("images", rows) @ self.weight + self.bias

    def check_tower(self, tower: str, width: int) -> None:
        """Raise ConfigError unless vectors of the model `tower`, of that width, fit; see `tower_note` for what is open."""
        made_for = f"it was made for {self.towers[0]}" if self.towers else "it was made for another model"
        if width != len(self.weight):
            raise ConfigError(
                f"{self.name} takes vectors of {len(self.weight)} numbers and {tower} gives {width}; {made_for}"
            )
        if self.towers and tower not in self.towers and not _is_local(tower):
            raise ConfigError(f"{self.name} does not fit {tower}; {made_for}: choose that model or another head")

    def tower_note(self, tower: str) -> str | None:
        """One line where the width alone says that the head fits `tower`; None where the name does."""
        if tower in self.towers:
            return None
        if not self.towers:
            return f"{self.name} does not say which model it was made for; only the width of {tower} fits for certain"
        return f"{self.name} was made for {self.towers[0]}; if {tower} holds another model, its numbers mean nothing"

    def tensors(self) -> dict[str, NDArray[np.float64]]:
        """The head as a state dict of one linear layer: `weight` (1, P) and `bias` (1,)."""
        return {"weight": self.weight[None, :], "bias": np.array([self.bias])}

    def described(self) -> dict[str, str]:
        """Metadata to store beside `tensors`, from which `aesthetic_head` learns the towers again: one entry, JSON."""
        return {FORMAT: json.dumps({"towers": self.towers, **dict(self.metadata)})}


def aesthetic_head(
    name: str, tensors: Mapping[str, NDArray[np.float64]], metadata: Mapping[str, str] | None = None
) -> AestheticHead:
    """Fold a head's state dict.

    name: for messages.   tensors: `weight` (1, P) and `bias` (1,), or those of layers by number.   metadata: strings that
    were stored beside them.   Raises ModelError for what is no linear head, or may hold an activation.
    """
    layers = _layers(name, tensors)
    said = _metadata(name, metadata or {})
    towers = said.pop("towers", None)
    weight, bias = folded([(layer.weight, layer.bias) for layer in layers])
    return AestheticHead(
        name=name,
        weight=weight,
        bias=bias,
        towers=tuple(map(str, towers)) if isinstance(towers, list) else _known_towers(layers),
        metadata=tuple((key, str(value)) for key, value in said.items()),
    )


def _metadata(name: str, stored: Mapping[str, str]) -> dict[str, object]:
    try:
        said = json.loads(stored.get(FORMAT, "{}"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name}: its metadata {FORMAT} is not JSON; write the head again") from error
    if not isinstance(said, dict):
        raise ModelError(f"{name}: its metadata {FORMAT} is not a JSON object; write the head again")
    return said


def folded(layers: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> tuple[NDArray[np.float64], float]:
    """Linear layers with nothing between them as one: (P,) and the bias, in float64.

    layers: weights (out, in) and biases (out,), first to last; the last has one output.
    """
    weight, bias = np.ones((1, 1)), np.zeros(1)
    for layer_weight, layer_bias in reversed(layers):
        bias = bias + weight @ layer_bias.astype(np.float64)
        weight = weight @ layer_weight.astype(np.float64)
    return weight[0].copy(), float(bias[0])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Layer:
    number: int
    prefix: str
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]


def _layers(name: str, tensors: Mapping[str, NDArray[np.float64]]) -> list[_Layer]:
    """The layers in order, checked: each takes what the one before gives, the last gives one number."""
    parts: dict[tuple[str, int], dict[str, NDArray[np.float64]]] = {}
    for key, value in tensors.items():
        match = _LAYER.fullmatch(key) or (_SINGLE.fullmatch(key) if len(tensors) == 2 else None)
        if match is None:
            raise ModelError(f"{name} is no aesthetic head: {key!r} is neither weight nor bias of a linear layer")
        found = match.groupdict()
        parts.setdefault((found.get("prefix") or "", int(found.get("number") or 0)), {})[found["part"]] = value
    layers = [_layer(name, *place, parts[place]) for place in sorted(parts)]
    if not layers or len({layer.prefix for layer in layers}) > 1:
        raise ModelError(f"{name} is no aesthetic head: expected one chain of linear layers, found {_counted(layers)}")
    for before, after in pairwise(layers):
        if after.weight.shape[1] != before.weight.shape[0]:
            raise ModelError(
                f"{name} is no aesthetic head: layer {after.number} does not take what {before.number} gives"
            )
    if layers[-1].weight.shape[0] != 1:
        raise ModelError(f"{name} is no aesthetic head: it gives {layers[-1].weight.shape[0]} numbers; expected one")
    _refuse_activations(name, layers)
    return layers


def _layer(name: str, prefix: str, number: int, parts: dict[str, NDArray[np.float64]]) -> _Layer:
    shapes = {part: parts[part].shape for part in sorted(parts)}
    weight, bias = parts.get("weight"), parts.get("bias")
    if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1] or not weight.size:
        raise ModelError(f"{name} is no aesthetic head: layer {number} has {shapes}; expected a weight and its bias")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ModelError(f"{name}: layer {number} holds NaN or infinity; fetch or fit the head again")
    return _Layer(number=number, prefix=prefix, weight=weight, bias=bias)


def _refuse_activations(name: str, layers: list[_Layer]) -> None:
    """A gap in the numbers is a module without weights: dropout where the layout is known, else maybe an activation."""
    numbers = [layer.number for layer in layers]
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))) or _is_v2(layers) or _is_v2_5(layers):
        return
    raise ModelError(
        f"{name}: activations may lie between its layers, numbered {', '.join(map(str, numbers))}, so it is not linear;"
        " expected a linear head, or v2 or v2.5 without activations"
    )


def _is_v2(layers: list[_Layer]) -> bool:
    return [layer.number for layer in layers] == [0, 2, 4, 6, 7] and _widths(layers)[1:] == _TAIL


def _is_v2_5(layers: list[_Layer]) -> bool:
    named = layers[0].prefix.split(".")[-1] == "scoring_head"
    return named and [layer.number for layer in layers] == [0, 2, 4, 6, 8] and _widths(layers) == (1152, *_TAIL)


def _widths(layers: list[_Layer]) -> tuple[int, ...]:
    return layers[0].weight.shape[1], *(layer.weight.shape[0] for layer in layers)


def _known_towers(layers: list[_Layer]) -> tuple[str, ...]:
    if _is_v2_5(layers):
        return _SO400M
    if _is_v2(layers):
        return _L14 if _widths(layers)[0] == 768 else ()
    return _V1.get(_digest(layers), ())


def _digest(layers: list[_Layer]) -> str:
    numbers = (part.astype("<f4").tobytes() for layer in layers for part in (layer.weight, layer.bias))
    return hashlib.sha256(b"".join(numbers)).hexdigest()[:16]


def _counted(layers: list[_Layer]) -> str:
    return f"{len({layer.prefix for layer in layers})} of them" if layers else "none"


def _is_local(tower: str) -> bool:
    """True for a checkpoint or folder, whose name does not tell which model it holds."""
    return "@" in tower or tower.startswith(_LOCAL)
