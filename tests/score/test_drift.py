"""Drift against a slow second way, position by position."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clipcond.errors import ShapeError
from clipcond.score.drift import Drift, measure_drift

ENDS = torch.tensor([1, 3, 6, 9])


def states(seed: int) -> Tensor:
    return torch.randn(4, 10, 8, generator=torch.Generator().manual_seed(seed))


def kind_of(at: int, end: int) -> str:
    return "bos" if at == 0 else "words" if at < end else "eos" if at == end else "padding"


def slowly(before: Tensor, after: Tensor) -> dict[str, list[tuple[float, float]]]:
    """(cosine, norm ratio) of every position, by kind."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in range(4):
        for at in range(10):
            a, b = before[row, at].double(), after[row, at].double()
            pair = (float(a @ b / (a.norm() * b.norm())), float(b.norm() / a.norm()))
            found.setdefault(kind_of(at, int(ENDS[row])), []).append(pair)
            if row == 0:
                found.setdefault("empty", []).append(pair)
    return found


def test_every_kind_equals_the_slow_way() -> None:
    before, after = states(0), states(0) + 0.3 * states(1)
    drift = measure_drift(before, after, ENDS)
    wanted = slowly(before, after)
    assert set(drift.kinds) == {"bos", "words", "eos", "padding", "empty"}
    for name, pairs in wanted.items():
        found = drift.kinds[name]
        assert found.positions == len(pairs)
        assert found.cosine == pytest.approx(sum(c for c, _ in pairs) / len(pairs))
        assert found.least_cosine == pytest.approx(min(c for c, _ in pairs))
        assert found.norm_ratio == pytest.approx(sum(r for _, r in pairs) / len(pairs))


def only(drift: Drift) -> set[str]:
    return {name for name, value in drift.measures().items() if value > 1e-6}


def test_equal_encoders_do_not_drift() -> None:
    pooled = torch.randn(4, 5)
    assert only(measure_drift(states(0), states(0), ENDS, pooled=(pooled, pooled))) == set()
    assert only(measure_drift(torch.zeros(4, 10, 8), torch.zeros(4, 10, 8), ENDS)) == {"spread"}  # all in one point


def test_each_kind_sees_its_own_positions_alone() -> None:
    before = states(0)
    bos, padding, longer = before.clone(), before.clone(), before.clone()
    bos[1:, 0] *= -1
    assert only(measure_drift(before, bos, ENDS)) == {"bos"}
    padding[1, 5:] += 1
    assert only(measure_drift(before, padding, ENDS)) == {"padding", "padding_norm"}
    longer[1:, 0] *= 2
    assert only(measure_drift(before, longer, ENDS)) == {"bos_norm"}
    pooled = torch.randn(4, 5)
    assert only(measure_drift(before, before, ENDS, pooled=(pooled, 3 * pooled))) == {"pooled_norm"}


def test_a_collapse_shows_in_the_spread() -> None:
    before = states(0)
    centre = before.mean(dim=(0, 1))
    drift = measure_drift(before, centre + 0.5 * (before - centre), ENDS)
    assert drift.spread_ratio == pytest.approx(0.5)
    assert drift.measures()["spread"] == pytest.approx(0.5)


def test_a_rotation_of_the_space_keeps_the_cosines_between_prompts() -> None:
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2)))[0]
    drift = measure_drift(states(0), states(0) @ turn, ENDS)
    assert drift.gram == pytest.approx(0, abs=1e-6)
    assert drift.measures()["words"] > 0.1


def test_a_family_that_reads_the_pooled_vector_alone() -> None:
    pooled = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    drift = measure_drift(None, None, ENDS, pooled=(pooled, pooled * torch.tensor([-1.0, 1, 1, 1])[:, None]))
    assert set(drift.kinds) == {"pooled", "empty"}
    assert drift.kinds["empty"].cosine == pytest.approx(-1)
    assert drift.spread_ratio == pytest.approx(1)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"states are \(4, 10, 8\) and \(4, 9, 8\), expected equal"):
        measure_drift(states(0), states(0)[:, 1:], ENDS)
    with pytest.raises(ShapeError, match="neither states nor pooled vectors"):
        measure_drift(None, None, ENDS)
    with pytest.raises(ShapeError, match="2 rows, expected the empty prompt and two more"):
        measure_drift(states(0)[:2], states(0)[:2], ENDS[:2])
