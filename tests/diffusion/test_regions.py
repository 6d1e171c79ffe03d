"""Regions: the shares of places by hand, identities in pipelines of every family, and `mini` drawing into the asked cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clipcond.diffusion.compose_denoiser import combine_in_place, composed
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.regions import Areas, Region, region_of_document
from clipcond.errors import ConfigError, DataError, ImageError
from clipcond.mini import world

FAMILIES = ("sd15", "sd2", "sdxl", "sd3", "sd3-no-t5", "flux")
WHOLE = (0, 0, 1, 1)
LEFT, RIGHT = (0, 0, 0.5, 1), (0.5, 0, 1, 1)


def draw(pipe: Any, kwargs: dict[str, Any], **options: Any) -> np.ndarray:
    images = pipe(
        **kwargs, num_inference_steps=3, generator=torch.Generator().manual_seed(3), output_type="np",
        **{"height": 16, "width": 16, **options},
    ).images  # fmt: skip
    assert isinstance(images, np.ndarray)
    return images


def negative(family: str) -> str | None:
    return None if family == "flux" else "grey"


def regional(pipe: Any, base: str, regions: list[Region], minus: str | None, **options: Any) -> np.ndarray:
    made = options.pop("made", {})
    parts = Conditioner.from_pipeline(pipe).regions(base, regions, minus, **made)
    with composed(pipe, parts):
        return draw(pipe, parts.kwargs, **options)


# places


def test_a_cell_of_three_by_three_on_eight_by_eight_latents() -> None:
    third = [1, 1, 2 / 3, 0, 0, 0, 0, 0]
    assert np.allclose(Region(prompt="a", cell="top left").shares(8, 8), np.outer(third, third), atol=1e-6)
    for number, name in enumerate(world.CELLS):
        row, column = divmod(number, 3)
        one = Region(prompt="a", cell=name).shares(8, 8)
        assert np.allclose(one, Region(prompt="a", cell=(row + 1, column + 1)).shares(8, 8))
    cells = [Region(prompt="a", cell=name).shares(8, 12) for name in world.CELLS]
    assert np.allclose(sum(cells), 1, atol=1e-6)


def test_feathers_are_ramps_about_the_edge_and_keep_the_picture_s_own() -> None:
    hard, soft = (Region(prompt="a", box=LEFT, feather=each).shares(8, 8)[0] for each in (0.0, 0.5))
    assert hard.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert soft[0] == pytest.approx(1, abs=0.01)  # two latent positions on both sides of the edge
    assert soft[7] == pytest.approx(0, abs=0.01)
    assert np.all(np.diff(soft) <= 1e-6)
    assert soft[3] + soft[4] == pytest.approx(1, abs=0.01)
    assert soft[3] == pytest.approx(0.625, abs=0.02)


def test_masks_are_read_from_pictures_arrays_and_files(tmp_path: Path) -> None:
    array = np.zeros((40, 80), dtype=np.uint8)
    array[:, :40] = 255
    picture = Image.fromarray(array)
    picture.save(tmp_path / "left.png")
    seen = [Region(prompt="a", mask=each).shares(8, 8) for each in (array, picture, tmp_path / "left.png")]
    assert all(np.array_equal(each, Region(prompt="a", box=LEFT).shares(8, 8)) for each in seen)
    clear = Image.new("RGBA", (4, 4), (255, 255, 255, 0))
    clear.paste((255, 255, 255, 255), (0, 0, 2, 4))
    assert np.array_equal(Region(prompt="a", mask=clear).shares(8, 8), seen[0])


def test_overlapping_regions_share_and_the_base_has_the_rest() -> None:
    regions = [Region(prompt="a", box=WHOLE), Region(prompt="b", box=LEFT, weight=0.5)]
    base, first, second = Areas(regions, [-1, 0, 1]).at(4, 4)
    assert first[0].tolist() == [0.5, 0.5, 1, 1]
    assert second[0].tolist() == [0.5, 0.5, 0, 0]
    assert base[0].tolist() == [0.25, 0.25, 0, 0]  # 1 − 1·0.5 − 0.5·0.5


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"cell": "top lef"}, "did you mean 'top left'"),
        ({"cell": "top left", "grid": (2, 2)}, "three by three"),
        ({"cell": (3, 1), "grid": (2, 2)}, r"from \(1, 1\) to \(2, 2\)"),
        ({"cell": (0, 1)}, r"from \(1, 1\)"),
        ({"cell": "center", "grid": (3, 0)}, "grid"),
        ({"box": (0, 0, 512, 512)}, "not in the picture"),
        ({"box": (1.2, 0, 1.5, 1)}, "not in the picture"),
        ({"box": (0.5, 0, 0.5, 1)}, "empty"),
        ({"box": (0, 0, 1)}, "expected left, top, right, bottom"),
        ({"box": (0, 0, float("nan"), 1)}, "expected left, top, right, bottom"),
        ({"mask": np.zeros((4, 4))}, "empty mask"),
        ({"mask": np.zeros((4, 4, 3))}, "shape"),
        ({}, "no place"),
        ({"cell": "center", "box": WHOLE}, "cell and box"),
        ({"cell": "center", "weight": -1}, "weight"),
        ({"cell": "center", "feather": 2}, "feather"),
    ],
)
def test_what_is_no_place_is_told_in_one_line(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Region(prompt="a red fox", **given)
    assert "\n" not in str(caught.value)
    assert "a red fox" in str(caught.value)


def test_documents_come_back_the_same(tmp_path: Path) -> None:
    array = np.arange(0, 200 * 100, dtype=np.float32).reshape(200, 100) / 100
    regions = [
        Region(prompt="a", cell="upper left".replace("upper", "top"), weight=0.7, feather=0.1),
        Region(prompt="b", cell=(1, 2), grid=(2, 2)),
        Region(prompt="c", box=LEFT),
        Region(prompt="d", mask=array),
    ]
    for number, region in enumerate(regions):
        again = region_of_document(region.to_document(), number, tmp_path)
        assert again.to_document() == region.to_document()
        assert np.array_equal(again.shares(16, 24), region.shares(16, 24))
        assert (again.weight, again.feather) == (region.weight, region.feather)


def test_documents_that_are_no_regions(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    for document, says in (
        ([1], "no object"),
        ({"cell": "center"}, "no prompt"),
        ({"prompt": "a", "ceil": "center"}, "did you mean 'cell'"),
        ({"prompt": "a", "mask": 3}, "mask that is no text"),
        ({"prompt": "a", "mask": "data:image/png;base64,AAAA"}, "damaged mask"),
    ):
        with pytest.raises(DataError, match=says):
            region_of_document(document, 1, tmp_path)
    for name in ("missing.png", "text.png"):
        with pytest.raises(ImageError, match=name):
            region_of_document({"prompt": "a", "mask": name}, 1, tmp_path)


# predictions


def test_a_part_of_weight_1_comes_back_bit_for_bit() -> None:
    parts = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(2, 1, 8, 8)
    weights[0, :, :, :4], weights[1, :, :, 4:] = 1, 1
    mixed = combine_in_place(parts, weights, torch.tensor([0, 0]), 1)
    assert torch.equal(mixed[0, ..., :4], parts[0, ..., :4])
    assert torch.equal(mixed[0, ..., 4:], parts[1, ..., 4:])
    rest = torch.full((1, 4, 8, 8), 2.0)
    assert torch.allclose(combine_in_place(parts, weights / 2, torch.tensor([0, 0]), 1, rest), mixed / 2 + 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_region_of_the_whole_picture_is_its_prompt_alone(family: str, pipes: Callable[[str], Any]) -> None:
    pipe, minus = pipes(family), negative(family)
    alone = draw(pipe, Conditioner.from_pipeline(pipe)("a (red:1.3) fox", minus, dialect="a1111").kwargs)
    made = {"dialect": "a1111"}
    whole = regional(pipe, "snow", [Region(prompt="a (red:1.3) fox", box=WHOLE)], minus, made=made)
    assert np.allclose(whole, alone, atol=2e-5)
    none = regional(pipe, "a (red:1.3) fox", [Region(prompt="snow", box=LEFT, weight=0)], minus, made=made)
    assert np.allclose(none, alone, atol=2e-5)
    same = [Region(prompt="a (red:1.3) fox", box=each, feather=0.2) for each in (LEFT, RIGHT, WHOLE)]
    assert np.allclose(regional(pipe, "a (red:1.3) fox", same, minus, made=made), alone, atol=2e-4)


@torch.no_grad()
@pytest.mark.parametrize("family", ["sd15", "sd3", "flux"])
def test_the_output_of_the_denoiser_is_each_prompt_s_own_in_its_place(family: str, pipes: Callable[[str], Any]) -> None:
    pipe, minus = pipes(family), negative(family)
    make = Conditioner.from_pipeline(pipe)
    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    outputs: list[torch.Tensor] = []

    def first(kwargs: dict[str, Any], **options: Any) -> torch.Tensor:
        outputs.clear()
        handle = denoiser.register_forward_hook(lambda m, a, o: outputs.append(o[0]))  # behind those of `composed`
        try:
            draw(pipe, kwargs, **options)
        finally:
            handle.remove()
        return outputs[0][-1]

    size = {"height": 16, "width": 32}
    whole, left, right = (first(make(text, minus).kwargs, **size) for text in ("snow", "a red fox", "a blue bird"))
    parts = make.regions(
        "snow", [Region(prompt="a red fox", box=(0, 0, 0.25, 1)), Region(prompt="a blue bird", box=RIGHT)], minus
    )
    with composed(pipe, parts):
        found = first(parts.kwargs, **size)
    if family == "flux":  # patches in a row: 4 rows of 8
        found, whole, left, right = (each.reshape(4, 8, -1).permute(2, 0, 1) for each in (found, whole, left, right))
    quarter = found.shape[-1] // 4
    expected = torch.cat([left[..., :quarter], whole[..., quarter : 2 * quarter], right[..., 2 * quarter :]], dim=-1)
    assert not torch.allclose(left, whole, atol=1e-4)
    assert torch.allclose(found, expected, atol=1e-5)


def test_long_prompts_schedules_and_and_inside_regions(pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sd15")
    make = Conditioner.from_pipeline(pipe)
    long = "a red fox in the snow, " * 16
    parts = make.regions("snow", [Region(prompt=long, box=LEFT)], "grey")
    assert parts.parts.shape == (1, 2, 154, 32)
    text = "a [red:blue:0.5] fox AND snow :0.5"
    made = {"dialect": "a1111", "steps": 3}
    with composed(pipe, both := make.compose(text, "grey", **made)):
        alone = draw(pipe, both.kwargs)
    whole = regional(pipe, "a bird", [Region(prompt=text, box=WHOLE)], "grey", made=made)
    assert np.allclose(whole, alone, atol=1e-4)
    with pytest.raises(ConfigError, match="changes over the steps"):
        make.regions("snow", [Region(prompt=text, box=LEFT)], dialect="a1111")


def test_several_pictures_and_no_guidance(pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sdxl")
    regions = [Region(prompt="a red fox", box=LEFT)]
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for scale in (1.0, 5.0):
        both = regional(
            pipe, "snow", regions, "grey", made={"num_images_per_prompt": 2}, latents=latents, guidance_scale=scale
        )
        second = regional(pipe, "snow", regions, "grey", latents=latents[1:], guidance_scale=scale)
        assert np.allclose(both[1:], second, atol=2e-4)


def test_no_negative_prompt_is_the_one_side_of_zeros_that_sdxl_means(pipes: Callable[[str], Any]) -> None:
    places = [Region(prompt="a blue bird", box=LEFT)]
    (found,) = Conditioner.from_pipeline(pipes("sdxl")).regions("a red fox", places, num_images_per_prompt=2).variants
    assert found.negative is not None
    assert found.negative_pooled is not None
    assert (len(found.negative), len(found.negative_pooled)) == (2, 2)
    assert not found.negative.any()


def test_only_regions_of_some_weight_are_computed(pipes: Callable[[str], Any]) -> None:
    pipe, seen = pipes("sd15"), list[int]()
    regions = [Region(prompt="a", box=LEFT), Region(prompt="b", box=RIGHT, weight=0)]
    parts = Conditioner.from_pipeline(pipe).regions("snow", regions, "")
    for scale in (5.0, 1.0):
        with composed(pipe, parts):
            handle = pipe.unet.conv_in.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
            draw(pipe, parts.kwargs, guidance_scale=scale)
            handle.remove()
    assert seen == [3] * 3 + [2] * 3


def test_what_regions_refuse(pipes: Callable[[str], Any]) -> None:
    make = Conditioner.from_pipeline(pipes("flux"))
    with pytest.raises(ConfigError, match="negative prompt"):
        make.regions("snow", [Region(prompt="a", box=LEFT)], "grey")
    with pytest.raises(ConfigError, match="no negative side that AND"):
        make.regions("snow", [Region(prompt="a AND b", box=LEFT)], dialect="a1111")
    with pytest.raises(ConfigError, match="one Region or more"):
        make.regions("snow", [])
    tiny = Region(prompt="a", box=(0, 0, 0.001, 0.001))
    with pytest.raises(ConfigError, match="make it larger"):
        regional(pipes("sd15"), "snow", [tiny], "")


def test_findings_name_their_region(pipes: Callable[[str], Any]) -> None:
    make = Conditioner.from_pipeline(pipes("sd15"))
    parts = make.regions("snow", [Region(prompt="a", box=LEFT), Region(prompt="a (red:1.2) fox", box=RIGHT)])
    assert [each.argument for each in parts.findings] == ["region 2"]


def test_mini_draws_into_the_asked_cell_and_nowhere_else() -> None:
    from clipcond.diffusion.pipelines import load_pipeline

    pipe = load_pipeline("mini", device="cpu")
    pipe.set_progress_bar_config(disable=True)
    everywhere = ", ".join(f"blue circle {cell}" for cell in world.CELLS) + ", on a gray background"
    cell = Region(prompt=everywhere, cell="bottom left")
    parts = Conditioner.from_pipeline(pipe).regions("on a gray background", [cell])
    with composed(pipe, parts):
        image = pipe(
            **parts.kwargs, num_inference_steps=8, guidance_scale=2.0, generator=torch.Generator().manual_seed(0)
        ).images[0]
    seen = world.look(image)
    assert seen == world.Scene("gray", (world.Object(colour="blue", shape="circle", cell="bottom left"),))
