"""The effect of a prompt's weights on its token states: any method with the weights of any dialect, CLIP or T5.

| method | arithmetic: z the states, w the weights, e the empty prompt's states, row by row |
|---|---|
| `none` | z |
| `a1111` | y = z·w, then y·mean(z)/mean(y): one mean for each chunk of each encoder |
| `no_norm` | z·w |
| `comfy` | e + w·(z − e) |
| `comfy_pp` | above 1 away from the states without the piece, below 1 towards them: ADV_CLIP_emb's "comfy++" |
| `compel` | as `comfy`, and below 1 also mixed with the states of the prompt with the fragment masked, by a tangent |
| `sd_embed` | z·w with w rounded to float16, as sd_embed does |
| `counterfactual` | z: weights act on the denoiser's prediction instead (`clipcond.diffusion.counterfactual`) |

Behind a method, parted by `+`: `length_norm` spreads a weight over the tokens of its piece, 1 + sign(w−1)·√((w−1)²/n);
`mean_norm` brings the mean over the content tokens of the prompt to 1, w + (1 − mean(w)). Both change the weights
before the method sees them, in the order in which they are written, and content tokens only.

`a1111` leaves z·w where a mean is within one standard error of zero or the two differ in sign, and says so (`near_zero`).
A weight of 0 leaves e's row under `comfy`, zeros under `no_norm`. A negative weight is taken as it is (`compel`: its
masked share is that of 0). Prompts give weights within ±10,000; one that is not finite is refused. Results that a half
precision cannot hold become its largest number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor

from clipcond.condition import formulas
from clipcond.condition.masked_chunks import MaskedChunk, compel_terms, down_terms, up_variants
from clipcond.encode.rows import TokenSequence
from clipcond.encode.shapes import check_axes
from clipcond.errors import ConfigError

__all__ = [
    "COUNTERFACTUAL",
    "DEFAULTS",
    "METHODS",
    "MODIFIERS",
    "MaskedChunk",
    "Method",
    "Needs",
    "Weighed",
    "needs",
    "parse_method",
    "variant_row",
    "weigh",
]  # fmt: skip

METHODS = ("none", "a1111", "no_norm", "comfy", "comfy_pp", "compel", "sd_embed")
COUNTERFACTUAL = "counterfactual"
MODIFIERS = ("length_norm", "mean_norm")
# the arithmetic that a dialect's users know it with
DEFAULTS: Mapping[str, str] = {"plain": "none", "a1111": "a1111", "comfy": "comfy", "compel": "compel"}


@dataclass(frozen=True, slots=True)
class Method:
    """A weighting by name, and the modifiers that change the weights first, in order."""

    name: str
    modifiers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "+".join([self.name, *self.modifiers])


@dataclass(frozen=True, slots=True)
class Needs:
    """The states that `weigh` needs besides a prompt's own."""

    empty: bool = False
    variants: tuple[MaskedChunk, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """Weighted states (K, L, D), and the chunks whose mean `a1111` could not restore: their states are z·w."""

    hidden: Tensor
    near_zero: tuple[int, ...] = ()


def parse_method(text: str) -> Method:
    """Return the weighting of a name, such as `comfy` or `a1111+length_norm`.

    Raises ConfigError for an unknown name, naming the nearest, for a modifier given twice, and for one that a weighting
    does not take.
    """
    name, *modifiers = [part.strip() for part in text.split("+")]
    _known("weighting", name, (*METHODS, COUNTERFACTUAL))
    for modifier in modifiers:
        _known("modifier of a weighting", modifier, MODIFIERS)
    if len(set(modifiers)) < len(modifiers):
        raise ConfigError(f"weighting {text!r} has a modifier twice; once is enough")
    if modifiers and name == COUNTERFACTUAL:
        raise ConfigError(f"weighting {name!r} takes no modifier; leave +{modifiers[0]} out")
    return Method(name, tuple(modifiers))


def needs(weights: Tensor, segments: Tensor, method: Method) -> Needs:
    """Return the rows to encode for `weigh`, besides the prompt's own; nothing where all weights are 1.

    weights: (K, L) float32.   segments: (K, L) int64, the number of the piece that a token belongs to, -1 on special
    tokens and padding. Raises ShapeError when their axes differ, ConfigError for a weight that is not finite.
    """
    weights = _applied(weights, segments, method)
    if method.name not in ("comfy", "comfy_pp", "compel") or _all_one(weights):
        return Needs()
    rows, marks = weights.tolist(), segments.tolist()
    if method.name == "comfy_pp":
        variants = [term.variant for term in down_terms(rows, marks)] + up_variants(rows, marks)
        return Needs(variants=tuple(dict.fromkeys(variants)))
    terms = compel_terms(rows, marks) if method.name == "compel" else []
    return Needs(empty=True, variants=tuple(dict.fromkeys(term.variant for term in terms)))


def variant_row(row: TokenSequence, variant: MaskedChunk, comma: int) -> TokenSequence:
    """Return the row to encode for a variant of it.   comma: the id of `,` in the vocabulary of the row's encoder."""
    hidden = set(variant.positions)
    if variant.how == "masked":
        return TokenSequence(row.ids, tuple(sorted(hidden.union(row.masked))), row.vectors)
    ids = tuple(comma if position in hidden else number for position, number in enumerate(row.ids))
    return TokenSequence(ids, row.masked, tuple(place for place in row.vectors if place[0] not in hidden))


def weigh(
    hidden: Tensor,
    weights: Tensor,
    segments: Tensor,
    *,
    method: Method,
    empty: Tensor | None = None,
    variants: Mapping[MaskedChunk, Tensor] | None = None,
) -> Weighed:
    """Weigh the token states of one prompt, or one part of it, in one encoder.

    hidden: (K, L, D), any float dtype and device.   weights: (K, L) float32 and segments: (K, L) int64, as in `needs`.
    empty: (L, D), the states of the empty prompt at the same length.   variants: (L, D) for each that `needs` named.
    Returns (K, L, D) in hidden's dtype and on its device, computed in float32 or wider; the same tensor where all
    weights are 1. Raises ShapeError for axes that do not fit, ConfigError for a weight that is not finite and for
    states that `needs` names and that are missing.
    """
    sizes = check_axes("hidden", hidden, "K L D")
    applied = _applied(weights, segments, method, K=sizes["K"], L=sizes["L"])
    if method.name in ("none", COUNTERFACTUAL) or _all_one(applied):
        return Weighed(hidden)
    z = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    w = applied.to(z)[..., None]
    if method.name == "a1111":
        out, near_zero = formulas.restore_mean(z, w)
        return Weighed(_narrowed(out, hidden.dtype), near_zero)
    if method.name in ("no_norm", "sd_embed"):
        return Weighed(_narrowed(z * w, hidden.dtype))
    rows, marks = applied.tolist(), segments.tolist()
    states = variants or {}
    if method.name == "comfy_pp":
        down, up = down_terms(rows, marks), up_variants(rows, marks)
        _check_states([*[term.variant for term in down], *up], states, sizes)
        return Weighed(_narrowed(formulas.comfy_pp(z, w, down, up, states), hidden.dtype))
    terms = compel_terms(rows, marks) if method.name == "compel" else []
    _check_states([term.variant for term in terms], states, sizes)
    e = _checked_empty(empty, method, sizes).to(z)
    return Weighed(_narrowed(formulas.compel(z, w, e, terms, states), hidden.dtype))


def _known(what: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        near = get_close_matches(name, names, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise ConfigError(f"unknown {what} {name!r}; {advice}")


def _applied(weights: Tensor, segments: Tensor, method: Method, **sizes: int) -> Tensor:
    """The weights (K, L) that the arithmetic sees, on the CPU: special tokens and padding 1, modifiers done."""
    sizes = check_axes("weights", weights, "K L", **sizes)
    check_axes("segments", segments, "K L", **sizes)
    if not bool(weights.isfinite().all()):
        at = tuple((~weights.isfinite()).nonzero()[0].tolist())
        raise ConfigError(f"weights: {weights[at].item()} at {at}, expected finite numbers")
    weights, segments = weights.detach().cpu().double(), segments.cpu()
    inside = segments >= 0
    applied = torch.where(inside, weights, 1.0)
    for modifier in method.modifiers:
        applied = torch.where(inside, _MODIFIERS[modifier](applied, segments, inside), 1.0)
    return _narrowed(applied, torch.float16 if method.name == "sd_embed" else torch.float32).float()


def _length_norm(weights: Tensor, segments: Tensor, inside: Tensor) -> Tensor:
    counts = torch.bincount(segments[inside], minlength=1)
    away = weights - 1
    return 1 + away.sign() * (away.square() / counts[segments.clamp(min=0)].clamp(min=1)).sqrt()


def _mean_norm(weights: Tensor, segments: Tensor, inside: Tensor) -> Tensor:
    return weights + (1 - weights[inside].mean()) if bool(inside.any()) else weights


_MODIFIERS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "length_norm": _length_norm,
    "mean_norm": _mean_norm,
}


def _all_one(weights: Tensor) -> bool:
    return bool((weights == 1).all())


def _narrowed(states: Tensor, dtype: torch.dtype) -> Tensor:
    """States in a dtype, within its range."""
    if states.dtype == dtype:
        return states
    limits = torch.finfo(dtype)
    return states.clamp(limits.min, limits.max).to(dtype)


def _check_states(variants: list[MaskedChunk], states: Mapping[MaskedChunk, Tensor], sizes: dict[str, int]) -> None:
    for variant in variants:
        if variant not in states:
            raise ConfigError(f"variants: none for {variant}; encode the rows that `needs` names")
        check_axes(f"states of {variant}", states[variant], "L D", L=sizes["L"], D=sizes["D"])


def _checked_empty(empty: Tensor | None, method: Method, sizes: dict[str, int]) -> Tensor:
    if empty is None:
        raise ConfigError(f"empty: None, but {method} wants the empty prompt's states (L, D)")
    check_axes("empty", empty, "L D", L=sizes["L"], D=sizes["D"])
    return empty
