"""The image tower over both libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ramps import ramp

from clipcond.encode.image import ImageTower
from clipcond.errors import ConfigError, ModelError, ShapeError
from clipcond.runtime.torchvision_repair import repair

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
OPENAI: dict[str, Any] = {"size": 224, "mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
PROCESSOR: dict[str, Any] = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "image_mean": list(MEAN),
    "image_std": list(STD),
    "resample": 3,
}


class Model(torch.nn.Module):
    """A tower that shows its input: mean of each channel, and the red pixel in the corner."""

    visual = None

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(()))

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.cat([pixels.mean(dim=(2, 3)), pixels[:, :1, 0, 0]], dim=1) * self.one


def test_pixels_are_normalised_with_the_models_own_numbers() -> None:
    tower = ImageTower.from_open_clip(Model(), {**OPENAI, "size": 8})
    for level, expected in (
        (0, (-1.792263, -1.752097, -1.480220)),
        (255, (1.930336, 2.074884, 2.145897)),
        (128, (0.076336, 0.168897, 0.339949)),
    ):
        row = tower.embed([Image.new("RGB", (8, 8), (level,) * 3)])[0]
        raw = torch.tensor([*expected, expected[0]])
        assert torch.allclose(row, raw / raw.norm(), atol=1e-5)


def test_order_is_kept_over_batches_and_rows_do_not_depend_on_their_batch(dual_folder: Path) -> None:
    from clipcond.models.load import load_dual

    tower = load_dual(str(dual_folder)).image
    pictures = [ramp(20 + 7 * n, 60 - 3 * n) for n in range(11)]
    many = tower.embed(pictures, batch_size=4)
    assert many.shape[0] == 11
    assert many.dtype == torch.float32
    assert not many.requires_grad
    assert torch.allclose(many.norm(dim=1), torch.ones(11), atol=1e-6)
    for number, picture in enumerate(pictures):
        assert (tower.embed([picture])[0] - many[number]).abs().max() < 1e-6


def test_equal_to_open_clip_itself(dual_folder: Path) -> None:
    repair()
    import open_clip

    from clipcond.models.load import load_dual

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{dual_folder}")
    picture = ramp(90, 61)
    with torch.inference_mode():
        expected = model.eval().encode_image(transform(picture).unsqueeze(0), normalize=True)
    assert (load_dual(str(dual_folder)).image.embed([picture]) - expected).abs().max() < 1e-5


def test_wrong_calls_say_what_is_wrong(dual_folder: Path) -> None:
    tower = ImageTower.from_open_clip(Model(), {**OPENAI, "size": 8})
    assert (tower.device.type, tower.dtype) == ("cpu", torch.float32)
    with pytest.raises(ConfigError, match="no pictures to encode"):
        tower.embed([])
    with pytest.raises(ConfigError, match="batch_size is 0"):
        tower.embed([ramp(4, 4)], batch_size=0)
    with pytest.raises(ShapeError, match=r"pixels are float64 \(1, 8, 8, 3\); expected uint8 \(N, 8, 8, 3\)"):
        tower.embed_pixels(np.zeros((1, 8, 8, 3)))
    with pytest.raises(ModelError, match="Linear has no image encoder"):
        ImageTower.from_open_clip(torch.nn.Linear(1, 1), OPENAI)
    with pytest.raises(ModelError, match="Linear has no image encoder with a projection"):
        ImageTower.from_transformers(torch.nn.Linear(1, 1), PROCESSOR)
