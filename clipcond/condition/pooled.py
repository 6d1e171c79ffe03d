"""One pooled vector for a prompt of several chunks, by an explicit policy. Pooled vectors are never weighted."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Literal, get_args

import torch
from torch import Tensor

from clipcond.encode.shapes import check_axes
from clipcond.errors import ConfigError, ShapeError

Policy = Literal["first", "last", "mean", "weighted"]
POLICIES = get_args(Policy)


def unknown_policy(policy: str) -> ConfigError:
    """Return the error for a policy that does not exist, naming the nearest."""
    near = get_close_matches(policy, POLICIES, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(POLICIES)}"
    return ConfigError(f"unknown policy for pooled vectors {policy!r}; {advice}")


def pool(pooled: Tensor, lengths: Sequence[int], policy: Policy | str) -> Tensor:
    """Return the pooled vector of one prompt in one encoder.

    pooled: (K, P), each chunk's own at its EOS, any float dtype and device.   lengths: (K,) content tokens of the chunks.
    policy: `first` the first chunk's, as A1111 and ComfyUI do; `last` the last one's, as lpw SDXL does; `mean` over the
    chunks; `weighted` the mean by `lengths` (all of them 0: `mean`).
    Returns (P,) in pooled's dtype, means computed in float32 or wider; of one chunk its own vector under every policy.
    Raises ConfigError for an unknown policy or a negative length, ShapeError for axes that differ or no chunk.
    """
    if policy not in POLICIES:
        raise unknown_policy(policy)
    chunks = check_axes("pooled", pooled, "K P", K=len(lengths))["K"]
    if chunks < 1:
        raise ShapeError("pooled: axis K is 0, expected at least 1 in (K, P)")
    if min(lengths) < 0:
        raise ConfigError(f"lengths: {list(lengths)}, expected none below 0")
    if chunks == 1 or policy in ("first", "last"):
        return pooled[-1 if policy == "last" else 0]
    shares = list(lengths) if policy == "weighted" and any(lengths) else [1] * chunks
    wide = pooled.to(torch.promote_types(pooled.dtype, torch.float32))
    factors = torch.tensor(shares, dtype=wide.dtype, device=wide.device) / sum(shares)
    return (wide * factors[:, None]).sum(dim=0).to(pooled.dtype)
