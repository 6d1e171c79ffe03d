"""Everything an embedding depends on, and its bytes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from clipcond.encode.embedding_space import EmbeddingSpace, packed, preprocessing_id, unpacked
from clipcond.errors import ConfigError, ShapeError
from clipcond.images.preprocess import Preprocess

PREPROCESS = Preprocess(height=224, width=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
SPACE = EmbeddingSpace(model="m", preprocess="p", width=8)
KEY = b"picture"
HALVES = dataclasses.replace(SPACE, dtype="float16")


def unit(seed: int, width: int = 8) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=width).astype(np.float32)
    return vector / np.linalg.norm(vector)


def test_float32_comes_back_bit_for_bit() -> None:
    for seed in range(200):
        vector = unit(seed)
        found = unpacked(packed(vector, SPACE, KEY), SPACE, KEY)
        assert found is not None
        assert found.tobytes() == vector.tobytes()


def test_float16_comes_back_of_unit_length() -> None:
    vector = unit(3, 768)
    space = dataclasses.replace(HALVES, width=768)
    found = unpacked(packed(vector, space, KEY), space, KEY)
    assert found is not None
    assert found.dtype == np.float32
    assert abs(float(np.linalg.norm(found.astype(np.float64))) - 1) < 1e-6
    assert float(found @ vector) > 0.999999


@pytest.mark.parametrize("space", [SPACE, HALVES])
def test_damaged_bytes_are_no_embedding(space: EmbeddingSpace) -> None:
    stored = packed(unit(1), space, KEY)
    broken = unit(1)
    for number in (np.nan, np.inf, 1e30, 0.0):
        broken[:] = number
        assert unpacked(packed(broken, space, KEY), space, KEY) is None
    for wrong in (stored[:-1], stored + b"\0\0", b"", None, "text", 3):
        assert unpacked(wrong, space, KEY) is None


@pytest.mark.parametrize("change", [{"model": "n"}, {"preprocess": "q"}])
def test_an_embedding_under_the_key_of_another_picture_or_model_is_none(change: dict[str, str]) -> None:
    stored = packed(unit(1), SPACE, KEY)
    assert unpacked(stored, SPACE, b"another") is None
    assert unpacked(stored, SPACE, KEY[:-1]) is None
    assert unpacked(stored, dataclasses.replace(SPACE, **change), KEY) is None  # type: ignore[arg-type]
    assert unpacked(packed(unit(2), SPACE, KEY)[:32] + stored[32:], SPACE, KEY) is None


def test_a_wrong_width_is_an_error() -> None:
    with pytest.raises(ShapeError, match=r"an embedding has the shape \(7,\); expected \(8,\)"):
        packed(unit(1, 7), SPACE, KEY)


def test_every_part_of_the_preprocessing_counts() -> None:
    changes = [{"height": 225}, {"policy": "longest"}, {"interpolation": "bilinear"}, {"fill": 1}, {"short": 256}]
    ids = {preprocessing_id(dataclasses.replace(PREPROCESS, **change)) for change in changes}  # type: ignore[arg-type]
    ids |= {preprocessing_id(PREPROCESS, view="tiles"), preprocessing_id(PREPROCESS, background=(0, 0, 0))}
    assert len(ids | {preprocessing_id(PREPROCESS)}) == len(changes) + 3
    assert preprocessing_id(PREPROCESS) == preprocessing_id(dataclasses.replace(PREPROCESS))


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="kept as float16 or float32, not as 'int8'"):
        dataclasses.replace(SPACE, dtype="int8")
    with pytest.raises(ConfigError, match="width 0 makes no sense"):
        dataclasses.replace(SPACE, width=0)
