"""Opening and preparing pictures, and the image tower over both libraries."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clipcond.encode.image import ImageTower
from clipcond.errors import ConfigError, ImageError, ModelError, ShapeError
from clipcond.images import decode as module
from clipcond.images.decode import open_image, to_rgb
from clipcond.images.preprocess import Preprocess
from clipcond.runtime.torchvision_repair import repair

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
OPENAI: dict[str, Any] = {"size": 224, "mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
PICTURES = Path(__file__).parents[3] / "shared" / "data" / "images" / "cc12m-32.tar"


def ramp(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray((np.stack([x, y, x + y], axis=-1) % 256).astype(np.uint8))


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    upright = Image.new("RGB", (6, 4), "white")
    upright.putpixel((0, 0), (255, 0, 0))
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    stored = upright.transpose(module._TURNS[undo[orientation]]) if orientation in undo else upright.copy()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    shown = to_rgb(open_image(tmp_path / "a.png"))
    assert shown.size == (6, 4)
    assert shown.tobytes() == upright.tobytes()


def test_damaged_orientation_is_ignored() -> None:
    image = ramp(5, 5)
    image.info["exif"] = b"Exif\0\0nonsense that is no TIFF"
    assert to_rgb(image).tobytes() == ramp(5, 5).tobytes()


def test_transparency_is_put_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert to_rgb(clear).getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb(Image.new("RGBA", (4, 4), (10, 20, 30, 255))).getpixel((0, 0)) == (10, 20, 30)
    assert to_rgb(Image.new("LA", (4, 4), (0, 0))).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)
    keyed = Image.new("RGB", (4, 4), (1, 2, 3))
    keyed.info["transparency"] = (1, 2, 3)
    assert to_rgb(keyed).getpixel((0, 0)) == (255, 255, 255)


def test_16_bit_greys_are_divided(tmp_path: Path) -> None:
    levels = np.array([[0, 1000, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    image = open_image(tmp_path / "deep.png")
    assert image.mode == "I;16"
    shown = np.asarray(to_rgb(image))
    assert shown[0, :, 0].tolist() == [0, 4, 128, 255]
    assert np.asarray(to_rgb(Image.fromarray(levels.astype(np.int32))))[0, :, 2].tolist() == [0, 4, 128, 255]


def test_palettes_are_converted_before_the_resize() -> None:
    board = Image.fromarray((np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8)).convert("P")
    pixels = Preprocess.from_open_clip({**OPENAI, "size": 3}).pixels(board)
    assert set(np.unique(pixels)) <= set(range(120, 136))
    assert Preprocess.from_open_clip({**OPENAI, "size": 3}).pixels(board.convert("1")).std() < 5


def test_cmyk_becomes_rgb() -> None:
    assert to_rgb(Image.new("CMYK", (2, 2), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def _truncated(folder: Path) -> Path:
    path = folder / "half.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    return path


def test_what_cannot_be_opened_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        open_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="is a folder, not a picture"):
        open_image(tmp_path)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ImageError, match=r"text\.png: is not a picture in a format"):
        open_image(tmp_path / "text.png")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"empty\.png: is empty"):
        open_image(tmp_path / "empty.png")
    with pytest.raises(ImageError, match=r"half\.png: cannot be decoded \(.*truncated"):
        open_image(_truncated(tmp_path))
    ramp(64, 64).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"big\.png: is too large \(Image size \(4096 pixels\)"):
        open_image(tmp_path / "big.png")


def test_pictures_can_be_used_after_opening(tmp_path: Path) -> None:
    ramp(9, 9).save(tmp_path / "a.png")
    assert open_image(str(tmp_path / "a.png")).tobytes() == ramp(9, 9).tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": None}, "preprocess_cfg size is None"),
        ({"size": [1, 2, 3]}, r"preprocess_cfg size is \[1, 2, 3\]"),
        ({"size": 0}, "0×0 makes no sense"),
        ({"mean": None}, "preprocess_cfg mean is None; expected three numbers"),
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
        ({"image_std": None}, "image_std is None"),
        ({"size": {"longest_edge": 5}}, "image processor size is"),
    ],
)
def test_processors_that_will_not_do(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Preprocess.from_processor({**PROCESSOR, **change})


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
