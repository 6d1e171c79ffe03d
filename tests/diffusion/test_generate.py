"""Pictures: each from its own seed, with its settings inside, never over another file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipcond.diffusion.conditioner import composition_of, condition
from clipcond.diffusion.generate import Picture, generate, settings_of
from clipcond.errors import ConfigError, ModelError, OutputExists
from clipcond.images.write import destinations, write_picture
from clipcond.prompt.infotext import parse_infotext

LONG = "a red circle in the top left, " * 20


def pixels(pictures: list[Picture]) -> np.ndarray:
    return np.stack([np.asarray(picture.image, dtype=int) for picture in pictures])


def make(pipe: Any, **options: Any) -> list[Picture]:
    return list(generate(pipe, **{"prompt": LONG, "steps": 2, "count": 3, **options}))


def test_same_seed_same_pictures(sd_pipe: Any) -> None:
    first, second = make(sd_pipe, seed=5), make(sd_pipe, seed=5)
    assert [(picture.seed, picture.index) for picture in first] == [(5, 0), (6, 1), (7, 2)]
    assert np.array_equal(pixels(first), pixels(second))
    assert not np.array_equal(pixels(first)[0], pixels(first)[1])


@pytest.mark.parametrize("through", ["conditioner", "stock"])
def test_a_picture_depends_on_its_seed_and_not_on_its_batch(sd_pipe: Any, through: Any) -> None:
    together, alone = make(sd_pipe, through=through), make(sd_pipe, batch_size=1, through=through)
    later = make(sd_pipe, seed=2, count=1, through=through)
    assert abs(pixels(together) - pixels(alone)).max() <= 1
    assert abs(pixels(together)[2] - pixels(later)[0]).max() <= 1


def test_it_is_what_the_pipeline_makes_of_the_conditioning(sd_pipe: Any) -> None:
    import torch

    out = condition(sd_pipe, LONG, "grey")
    generator = torch.Generator().manual_seed(9)
    image = sd_pipe(**out.kwargs, num_inference_steps=2, guidance_scale=3.0, generator=generator).images[0]
    (picture,) = make(sd_pipe, negative_prompt="grey", guidance_scale=3.0, seed=9, count=1)
    assert np.array_equal(np.asarray(picture.image), np.asarray(image))


def test_the_stock_way_reads_the_first_chunk_only(sd_pipe: Any) -> None:
    tail = LONG + "and something else"
    assert np.array_equal(pixels(make(sd_pipe, through="stock")), pixels(make(sd_pipe, prompt=tail, through="stock")))
    ours, theirs = (pixels(make(sd_pipe, prompt=text)) for text in (LONG, tail))
    assert not np.array_equal(ours, theirs)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
@pytest.mark.parametrize("through", ["conditioner", "stock"])
def test_every_family_makes_several_pictures_at_once(pipes: Any, family: str, through: Any) -> None:
    together, alone = (
        make(pipes(family), prompt="a red fox", through=through, batch_size=size, count=2) for size in (2, 1)
    )
    assert abs(pixels(together) - pixels(alone)).max() <= 1


def test_a_pipeline_that_draws_from_a_picture_is_refused(pipes: Any) -> None:
    with pytest.raises(ModelError, match=r"StableDiffusionXLImg2ImgPipeline draws from a picture \(image\)"):
        make(pipes("refiner"), prompt="a red fox")


def test_a_clip_skip_that_the_pipeline_itself_cannot_is_refused(pipes: Any) -> None:
    with pytest.raises(ConfigError, match="clip_skip is 1, but the call of FluxPipeline takes none"):
        make(pipes("flux"), prompt="a red fox", through="stock", clip_skip=1)


def test_progress_counts_pictures_per_step(sd_pipe: Any) -> None:
    moved: list[int] = []
    make(sd_pipe, batch_size=2, on_step=moved.append)
    assert moved == [2, 2, 1, 1]


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"count": 0}, "count is 0, expected 1 or more"),
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"seed": 2**63 - 1}, "seed is 9223372036854775807; the last of 8 would have one above"),
        ({"through": "magic"}, "through is 'magic', expected 'conditioner' or 'stock'"),
    ],
)
def test_numbers_out_of_range_are_refused_before_the_first_picture(sd_pipe: Any, option: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        generate(sd_pipe, **{"prompt": LONG, **option})


def test_a_file_carries_its_prompt_and_settings(sd_pipe: Any, tmp_path: Path) -> None:
    prompt = "a füchs 🦊,\nin two lines"
    (picture,) = make(sd_pipe, prompt=prompt, count=1, seed=4)
    settings = settings_of(sd_pipe, picture, steps=2, guidance_scale=None, model="mini")
    for name in ("a.png", "b.png"):
        write_picture(picture.image, tmp_path / "new" / name, prompt=prompt, negative_prompt="grey", settings=settings)
    assert (tmp_path / "new" / "a.png").read_bytes() == (tmp_path / "new" / "b.png").read_bytes()
    with Image.open(tmp_path / "new" / "a.png") as image:
        found = parse_infotext(image.info["parameters"])
    assert (found.prompt, found.negative_prompt) == (prompt, "grey")
    assert dict(found.settings) == {
        "Steps": "2",
        "Sampler": "DDIM",
        "CFG scale": "7.5",
        "Seed": "4",
        "Size": "16x16",
        "Model": "mini",
    }
    with pytest.raises(OutputExists, match=r"a\.png is there already"):
        write_picture(picture.image, tmp_path / "new" / "a.png", prompt=prompt, settings=settings)


def test_files_in_the_way_are_named(tmp_path: Path) -> None:
    files = destinations(tmp_path / "out", 2, 40)
    assert [file.name for file in files] == ["00000-40.png", "00001-41.png"]
    files[0].parent.mkdir()
    files[1].touch()
    with pytest.raises(OutputExists, match=r"00001-41\.png is there already; name another folder or seed"):
        destinations(tmp_path / "out", 2, 40)
    files[0].touch()
    with pytest.raises(OutputExists, match=r"00000-40\.png and 1 more are there already"):
        destinations(tmp_path / "out", 2, 40)
    with pytest.raises(OutputExists, match="is a file; name a folder"):
        destinations(files[0], 2, 40)


def test_a_conditioning_of_two_rows_is_refused_where_one_is_drawn_from(sd_pipe: Any) -> None:
    two = condition(sd_pipe, "a red fox", num_images_per_prompt=2)
    with pytest.raises(
        ConfigError, match="has 2 rows for its prompt, expected 1; make it without num_images_per_prompt"
    ):
        generate(sd_pipe, conditioning=two)
    composition = composition_of(sd_pipe, "a fox AND a cat", num_images_per_prompt=2)
    with pytest.raises(ConfigError, match="has 2 rows for its prompt, expected 1"):
        generate(sd_pipe, conditioning=composition)
