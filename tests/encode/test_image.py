"""The image tower over both libraries."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ramps import ramp

from clipcond.encode.fingerprint import Fingerprint
from clipcond.encode.image import ImageTower, Normalisation
from clipcond.encode.precision import cast_tower, dtype_of
from clipcond.errors import ConfigError, ModelError, ShapeError
from clipcond.images.preprocess import Preprocess
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


def _open_clip_configs() -> list[dict[str, Any]]:
    """The preprocessing of every architecture and tag that open_clip names, each once."""
    repair()
    import open_clip
    from open_clip.transform import PreprocessCfg

    found: dict[str, dict[str, Any]] = {}
    for name in open_clip.list_models():
        size = (open_clip.get_model_config(name) or {}).get("vision_cfg", {}).get("image_size", 224)
        published = [open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
        for stated in ({}, *published):
            config = {**asdict(PreprocessCfg()), "size": size}
            config |= {key: value for key, value in stated.items() if key in config and value is not None}
            found.setdefault(repr(sorted(config.items())), config)
    return list(found.values())


def test_bit_for_bit_as_open_clips_own_transform_for_every_architecture_that_it_names() -> None:
    configs = _open_clip_configs()
    from open_clip.transform import PreprocessCfg, image_transform_v2

    assert len(configs) >= 20
    assert {config["resize_mode"] for config in configs} >= {"shortest", "squash"}
    noise = np.random.default_rng(0).integers(0, 256, (371, 533, 3), dtype=np.uint8)
    pictures = [Image.fromarray(noise), ramp(90, 400), ramp(640, 427).convert("L")]
    for config in (*configs, {**configs[0], "resize_mode": "longest", "interpolation": "bicubic"}):
        transform = image_transform_v2(PreprocessCfg(**config), is_train=False)
        preprocess = Preprocess.from_open_clip(config)
        normalise = Normalisation(preprocess)
        for picture in pictures:
            ours = normalise(preprocess.pixels(picture)[None], torch.device("cpu"))[0]
            assert torch.equal(ours, transform(picture)), (config, picture.size)


def test_halves_of_float32_keep_the_texts_and_come_near_the_vectors(dual_folder: Path) -> None:
    from clipcond.models.load import load_dual

    exact, half = load_dual(str(dual_folder)), load_dual(str(dual_folder))
    assert cast_tower(half.image, "fp32") == ()
    assert half.image.dtype == torch.float32
    cast_tower(half.image, "bf16")
    assert (half.image.dtype, half.text.dtype) == (torch.bfloat16, torch.float32)
    pictures = [ramp(40 + n, 33) for n in range(5)]
    expected, found = exact.image.embed(pictures), half.image.embed(pictures, batch_size=2)
    assert found.dtype == torch.float32
    assert torch.allclose(found.norm(dim=1), torch.ones(5), atol=1e-6)
    assert 0 < (found - expected).abs().max() < 0.02
    assert Fingerprint(half.image.model)() != Fingerprint(exact.image.model)()


@pytest.mark.parametrize(
    ("precision", "device", "flagged", "dtype"),
    [
        ("fp32", "cuda", True, torch.float32),
        ("auto", "cuda", False, torch.float16),
        ("auto", "cpu", True, torch.bfloat16),
        ("auto", "cpu", False, torch.float32),
        ("auto", "mps", True, torch.float32),
        ("bf16", "cpu", False, torch.bfloat16),
        ("fp16", "cuda", False, torch.float16),
    ],
)
def test_a_precision_is_a_dtype_on_a_device(
    precision: str, device: str, flagged: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipcond.encode.precision.multiplies_bfloat16", lambda: flagged)
    assert dtype_of(precision, torch.device(device)) == dtype


def test_precisions_that_will_not_do(dual_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="precision is 'int8'; expected one of fp32, auto, bf16, fp16"):
        dtype_of("int8", torch.device("cpu"))
    with pytest.raises(ConfigError, match="fp16 is for a GPU; on a CPU take bf16, or auto"):
        dtype_of("fp16", torch.device("cpu"))
    monkeypatch.setattr("clipcond.encode.precision.multiplies_bfloat16", lambda: False)
    tower = ImageTower.from_open_clip(Model(), {**OPENAI, "size": 8})
    assert "no instructions for bfloat16" in cast_tower(tower, "bf16")[0]


def test_a_small_batch_is_filled_up_beside_a_cpu_only() -> None:
    tower = ImageTower.from_open_clip(Model(), {**OPENAI, "size": 8})
    few = torch.zeros(3, 3, 8, 8)
    assert tower._filled(few, 32) is few
    assert tower._filled(few.to("meta"), 32).shape == (32, 3, 8, 8)
    assert tower._filled(few.to("meta"), 2).shape == (3, 3, 8, 8)
