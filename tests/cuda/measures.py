"""Differences of the device from the CPU, asserted and kept for the summary at the end of the run."""

from __future__ import annotations

from typing import Any

FOUND: list[tuple[str, float, float]] = []  # of each measure: its name, what was found, what is allowed


def within(found: float, allowed: float, what: str) -> None:
    """Assert that a measure is at most what is allowed, and say both."""
    FOUND.append((what, found, allowed))
    assert found <= allowed, f"{what}: {found:.2e}, allowed {allowed:.0e}"


def close(ours: Any, other: Any, *, relative: float, what: str) -> None:
    """Assert that two tensors differ by at most `relative` of the largest number of the other, in float32 on the CPU."""
    import torch

    one, two = (torch.as_tensor(each).detach().float().cpu() for each in (ours, other))
    assert one.shape == two.shape, f"{what}: shapes {tuple(one.shape)} and {tuple(two.shape)}"
    within(float((one - two).abs().max() / two.abs().max().clamp(min=1e-12)), relative, what)
