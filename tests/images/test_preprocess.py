"""Pixels as models want them, against published vectors and configs of every spelling."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ramps import ramp

from clipcond.errors import ModelError
from clipcond.images import preprocess as module
from clipcond.images.preprocess import Preprocess
from clipcond.runtime.torchvision_repair import repair

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
OPENAI: dict[str, Any] = {"size": 224, "mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
PICTURES = Path(__file__).parents[3] / "shared" / "data" / "images" / "cc12m-32.tar"


# width, height, policy, resized, channel means, pixels (0, 0), (112, 112), (223, 223)
VECTORS = [
    (300, 600, "shortest", (224, 448), (111.942, 133.942, 128.923), (0, 150, 150), (150, 44, 194), (43, 193, 236)),
    (300, 600, "longest", (112, 224), (55.982, 57.598, 63.081), (0, 0, 0), (151, 45, 196), (0, 0, 0)),
    (640, 427, "shortest", (335, 224), (139.888, 110.469, 126.101), (107, 0, 107), (65, 214, 23), (21, 170, 191)),
    (640, 427, "longest", (224, 149), (76.353, 73.482, 85.416), (0, 0, 0), (65, 216, 25), (0, 0, 0)),
    (1024, 1024, "shortest", (224, 224), (127.571, 127.571, 127.577), (2, 2, 4), (22, 22, 3), (253, 253, 250)),
]


@pytest.mark.parametrize(("width", "height", "policy", "resized", "means", "first", "middle", "last"), VECTORS)
def test_pixels_match_published_vectors(
    width: int,
    height: int,
    policy: str,
    resized: tuple[int, int],
    means: tuple[float, ...],
    first: tuple[int, ...],
    middle: tuple[int, ...],
    last: tuple[int, ...],
) -> None:
    preprocess = Preprocess.from_open_clip({**OPENAI, "resize_mode": policy})
    pixels = preprocess.pixels(ramp(width, height)).astype(int)
    assert preprocess.resized(width, height) == resized
    assert pixels.shape == (224, 224, 3)
    assert np.allclose(pixels.mean(axis=(0, 1)), means, atol=0.01)
    for place, expected in ((0, first), (112, middle), (223, last)):
        assert np.abs(pixels[place, place] - expected).max() <= 1


def test_a_real_picture_matches_its_vector() -> None:
    if not PICTURES.exists():
        pytest.skip(f"no real pictures: {PICTURES} is absent")
    with tarfile.open(PICTURES) as tar:
        name = next(member for member in tar.getnames() if member.endswith("000000004.jpg"))
        stored = tar.extractfile(name)
        assert stored is not None
        image = Image.open(io.BytesIO(stored.read()))
    preprocess = Preprocess.from_open_clip(OPENAI)
    assert preprocess.resized(*image.size) == (336, 224)
    assert np.allclose(preprocess.pixels(image).mean(axis=(0, 1)), (99.42, 89.70, 77.89), atol=0.5)


def test_squash_gives_up_the_aspect() -> None:
    halves = Image.new("RGB", (40, 10), "red")
    halves.paste("blue", (20, 0, 40, 10))
    pixels = Preprocess.from_open_clip({**OPENAI, "size": 8, "resize_mode": "squash"}).pixels(halves)
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[7, 7].tolist() == [0, 0, 255]


def test_sizes_that_are_not_square() -> None:
    crop = Preprocess.from_open_clip({**OPENAI, "size": [32, 64]})
    assert crop.resized(100, 100) == (64, 64)
    assert crop.pixels(ramp(100, 100)).shape == (32, 64, 3)
    pad = Preprocess.from_open_clip({**OPENAI, "size": [32, 64], "resize_mode": "longest", "fill_color": 9})
    assert pad.resized(100, 100) == (32, 32)
    assert pad.pixels(ramp(100, 100))[0, 0].tolist() == [9, 9, 9]


def test_a_sliver_still_has_a_pixel() -> None:
    pad = Preprocess.from_open_clip({**OPENAI, "size": 16, "resize_mode": "longest"})
    assert pad.pixels(ramp(1, 4000)).shape == (16, 16, 3)
    assert Preprocess.from_open_clip({**OPENAI, "size": 16}).pixels(ramp(4, 400)).shape == (16, 16, 3)


def test_share_seen_is_short_over_long() -> None:
    crop = Preprocess.from_open_clip(OPENAI)
    assert crop.share_seen(512, 1024) == 0.5
    assert crop.share_seen(768, 1024) == pytest.approx(0.75, abs=0.003)
    assert Preprocess.from_open_clip({**OPENAI, "resize_mode": "longest"}).share_seen(512, 1024) == 1.0


def test_palettes_are_converted_before_the_resize() -> None:
    board = Image.fromarray((np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8)).convert("P")
    pixels = Preprocess.from_open_clip({**OPENAI, "size": 3}).pixels(board)
    assert set(np.unique(pixels)) <= set(range(120, 136))
    assert Preprocess.from_open_clip({**OPENAI, "size": 3}).pixels(board.convert("1")).std() < 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": None}, "preprocess_cfg size is None"),
        ({"size": [1, 2, 3]}, r"preprocess_cfg size is \[1, 2, 3\]"),
        ({"size": 0}, "a picture side of 0 makes no sense; expected 1 to 4096"),
        ({"mean": None}, "preprocess_cfg mean is None; expected three numbers"),
        ({"mean": [0.5, float("nan"), 0.5]}, "expected finite numbers and std above 0"),
        ({"std": [0, 0, 0]}, "expected finite numbers and std above 0"),
        ({"mean": ["a", "b", "c"]}, r"preprocess_cfg mean is \['a', 'b', 'c'\]"),
        ({"size": 10**9}, "a picture side of 1000000000 makes no sense"),
        ({"size": True}, "preprocess_cfg size is True"),
        ({"size": 22.5}, "preprocess_cfg size is 22.5"),
        ({"fill_color": "white"}, "preprocess_cfg fill_color is 'white'; expected a number from 0 to 255"),
        ({"interpolation": ["bicubic"]}, r"preprocess_cfg interpolation is \['bicubic'\]"),
        ({"resize_mode": {"a": 1}}, "unknown resize mode"),
        ({"interpolation": "magic"}, "unknown interpolation 'magic'"),
        ({"resize_mode": "fold"}, "unknown resize mode 'fold'"),
    ],
)
def test_open_clip_configs_that_will_not_do(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Preprocess.from_open_clip({**OPENAI, **change})


PROCESSOR: dict[str, Any] = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "image_mean": list(MEAN),
    "image_std": list(STD),
    "resample": 3,
}


def test_processors_are_read_in_all_their_spellings() -> None:
    crop = Preprocess.from_processor(PROCESSOR)
    image = ramp(300, 500)
    assert np.array_equal(crop.pixels(image), Preprocess.from_open_clip(OPENAI).pixels(image))
    assert Preprocess.from_processor({**PROCESSOR, "size": 224, "crop_size": 224}) == crop
    larger = Preprocess.from_processor({**PROCESSOR, "size": {"shortest_edge": 256}})
    assert larger.resized(512, 512) == (256, 256)
    assert larger.pixels(image).shape == (224, 224, 3)
    squash = Preprocess.from_processor(
        {**PROCESSOR, "size": {"height": 16, "width": 16}, "do_center_crop": False, "image_mean": 0.5, "resample": 2}
    )
    assert (squash.policy, squash.interpolation, squash.mean) == ("squash", "bilinear", (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_resize": False}, "sets do_resize to false"),
        ({"do_center_crop": False}, "keeps the aspect and does not crop"),
        ({"resample": 99}, "unknown filter: 99"),
        ({"rescale_factor": 1.0}, "rescales by 1.0; expected 1/255"),
        ({"image_std": "odd"}, "image_std is 'odd'"),
        ({"image_std": [0, 0, 0]}, "expected finite numbers and std above 0"),
        ({"rescale_factor": "1/255"}, "rescales by '1/255'; expected 1/255"),
        ({"size": True}, "image processor size is True"),
        ({"size": {"shortest_edge": "224"}}, "image processor size is '224'"),
        ({"crop_size": 10**9}, "a picture side of 1000000000 makes no sense"),
        ({"image_processor_type": "OtherImageProcessor"}, "'OtherImageProcessor' that leaves out do_center_crop"),
        ({"size": {"longest_edge": 5}}, "image processor size is"),
    ],
)
def test_processors_that_will_not_do(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Preprocess.from_processor({**PROCESSOR, **change})


def _transformers_processor(config: dict[str, Any]) -> Any:
    """transformers' CLIP image processor on Pillow: a class of its own since transformers 5."""
    repair()
    import transformers

    kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    return kind(**config)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({}, (301, 200)),
        ({"size": {"shortest_edge": 33}, "crop_size": 20}, (50, 34)),
        ({"size": {"shortest_edge": 32}, "crop_size": {"height": 19, "width": 24}}, (77, 51)),
        ({"size": {"shortest_edge": 20}, "crop_size": 33}, (40, 60)),
        ({"size": {"shortest_edge": 20}, "crop_size": 24}, (90, 60)),
        ({"size": {"height": 40, "width": 30}, "crop_size": 21}, (64, 64)),
        ({"size": {"height": 40, "width": 30}, "do_center_crop": False, "resample": 2}, (64, 48)),
        ({"size": {"shortest_edge": 300}}, (400, 420)),
    ],
)
def test_transformers_own_preprocessing_to_the_pixel(config: dict[str, Any], size: tuple[int, int]) -> None:
    raw = {"do_rescale": False, "do_normalize": False}
    expected = _transformers_processor({**config, **raw})(ramp(*size), return_tensors="np")["pixel_values"][0]
    assert np.array_equal(Preprocess.from_processor(config).pixels(ramp(*size)), expected.transpose(1, 2, 0))


def test_what_a_processor_leaves_out_is_as_in_transformers() -> None:
    ours, theirs = Preprocess.from_processor({}), _transformers_processor({})
    assert (ours.mean, ours.std) == (tuple(theirs.image_mean), tuple(theirs.image_std))
    assert (ours.height, ours.width, ours.short, ours.interpolation) == (224, 224, 224, "bicubic")


_SLIVERS = """
import resource
from PIL import Image
from clipcond.images.preprocess import Preprocess

start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for policy in ("shortest", "longest", "squash"):
    config = {"size": 224, "mean": 0.5, "std": 0.5, "resize_mode": policy}
    for size in ((1, 600_000), (600_000, 1), (1, 2_000_000), (2_000_000, 1), (2, 100_000)):
        pixels = Preprocess.from_open_clip(config).pixels(Image.new("RGB", size, (77, 77, 77)))
        assert pixels.shape == (224, 224, 3) and set(pixels.ravel().tolist()) <= {0, 77}, size
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024)
"""


def test_a_sliver_of_two_million_pixels_takes_no_gigabytes() -> None:
    pytest.importorskip("resource", reason="needs a POSIX system")
    run = subprocess.run([sys.executable, "-c", _SLIVERS], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 200  # MB


def test_the_crop_before_the_resize_shows_what_the_crop_after_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 90, 3), dtype=np.uint8))
    for policy in ("shortest", "squash"):
        preprocess = Preprocess.from_open_clip({**OPENAI, "size": 64, "resize_mode": policy})
        for image in (noise, noise.transpose(Image.Transpose.ROTATE_90)):
            monkeypatch.setattr(module, "_LARGEST_RESIZE", 1 << 24)
            after = preprocess.pixels(image).astype(int)
            monkeypatch.setattr(module, "_LARGEST_RESIZE", 1)
            assert np.abs(preprocess.pixels(image).astype(int) - after).max() <= 2


def test_16_bit_greys_of_full_size_do_not_take_many_times_their_memory() -> None:
    resource = pytest.importorskip("resource", reason="needs a POSIX system")
    deep = Image.new("I;16", (4000, 4000))  # 32 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert Preprocess.from_open_clip(OPENAI).pixels(deep).max() == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 160 * 1024


_ALIGN = {
    "do_center_crop": True,
    "rescale_factor": 1 / 127.5,
    "rescale_offset": True,
    "do_normalize": False,
    "include_top": False,
    "resample": 2,
}
_PROCESSORS: list[tuple[str, dict[str, Any]]] = [
    ("Siglip", {}), ("Blip", {}), ("ViT", {}), ("ChineseCLIP", {}), ("EfficientNet", {}), ("EfficientNet", _ALIGN),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings"), _PROCESSORS)
def test_what_a_processor_leaves_out_is_as_in_its_class(name: str, settings: dict[str, Any]) -> None:
    repair()
    import torch
    import transformers

    from clipcond.encode.image import Normalisation

    theirs = getattr(transformers, f"{name}ImageProcessorPil")(**settings)
    expected = theirs(ramp(300, 211), return_tensors="pt")["pixel_values"][0]
    for config in ({"image_processor_type": f"{name}ImageProcessor", **settings}, theirs.to_dict()):
        ours = Preprocess.from_processor(config)
        found = Normalisation(ours)(ours.pixels(ramp(300, 211))[None], torch.device("cpu"))[0]
        assert (found - expected).abs().max() < 1e-5
