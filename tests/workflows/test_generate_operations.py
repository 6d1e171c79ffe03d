"""`clipcond generate --operation`, `--adaptive`: made again from pictures and files, rows that are told, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipcond.errors import ConfigError, OptionsError
from clipcond.prompt.infotext import parse_infotext
from clipcond.workflows.encode import EncodeOptions
from clipcond.workflows.encode import run as encode
from clipcond.workflows.events import Advanced, Event, Note, Started
from clipcond.workflows.generate import GenerateOptions, PictureDone, WrittenPicture, run
from clipcond.workflows.prompt_options import PromptOptions

OPERATIONS = ("slider 0.5: red -> blue", 'lerp 0.25: a "bird", two: 3', "vary 0.1: 7", "gain 1.5: clip_l")


def draw(folder: Path, out: Path, prompt: PromptOptions | None, **more: Any) -> tuple[WrittenPicture, ...]:
    options = {"pipeline": str(folder), "count": 1, "steps": 3, "seed": 2} | more
    return run(GenerateOptions(out=out, prompt=prompt or PromptOptions(), **options))


def test_a_picture_is_made_again_from_what_it_carries(sd_folder: Path, tmp_path: Path) -> None:
    prompt = PromptOptions(prompt="a (red:1.3) fox", dialect="a1111", operations=OPERATIONS)
    (first,) = draw(sd_folder, tmp_path / "a", prompt)
    (again,) = draw(sd_folder, tmp_path / "b", None, infotext=str(first.path), steps=None, seed=None)
    assert again.path.read_bytes() == first.path.read_bytes()
    (plain,) = draw(sd_folder, tmp_path / "c", PromptOptions(prompt="a (red:1.3) fox", dialect="a1111"))
    with Image.open(plain.path) as one, Image.open(first.path) as other:
        assert one.tobytes() != other.tobytes()
        assert parse_infotext(other.info["parameters"]).prompt == "a (red:1.3) fox"


def test_a_file_s_operations_are_in_its_pictures(sd_folder: Path, tmp_path: Path) -> None:
    prompt = PromptOptions(prompt="a red fox", operations=OPERATIONS)
    encode(EncodeOptions(out=tmp_path / "fox.safetensors", model=str(sd_folder), prompt=prompt))
    (first,) = draw(sd_folder, tmp_path / "a", None, conditioning=tmp_path / "fox.safetensors")
    (again,) = draw(sd_folder, tmp_path / "b", None, infotext=str(first.path), steps=None, seed=None)
    assert again.path.read_bytes() == first.path.read_bytes()


def test_a_damaged_setting_is_told(sd_folder: Path, tmp_path: Path) -> None:
    for written, says in (("vary", "no list of operations"), ('["vary much: 3"]', "--operation: 'vary much: 3'")):
        (tmp_path / "info.txt").write_text(
            f"a fox\nSteps: 3, Seed: 1, CFG scale: 2, Prompt operations: {written}", encoding="utf-8"
        )
        with pytest.raises(OptionsError, match=says):
            draw(sd_folder, tmp_path / "a", None, infotext=str(tmp_path / "info.txt"))


def test_what_operations_do_not_go_with(sd_folder: Path, tmp_path: Path) -> None:
    prompt = PromptOptions(prompt="a AND b", dialect="a1111", operations=OPERATIONS[2:3])
    with pytest.raises(ConfigError, match="AND makes several"):
        draw(sd_folder, tmp_path, prompt)
    for more in (
        {"stock": True},
        {"regions": tmp_path},
        {"conditioning": tmp_path, "prompt": PromptOptions(operations=OPERATIONS)},
    ):
        with pytest.raises(OptionsError, match="--operation"):
            GenerateOptions(out=tmp_path, **{"prompt": PromptOptions(prompt="a", operations=OPERATIONS), **more})  # type: ignore[arg-type]
    with pytest.raises(OptionsError, match="such as: vary"):
        PromptOptions(prompt="a", operations=("vary",))


def test_adaptive_draws_a_quarter_to_the_end(sd_folder: Path, dual_folder: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    options = GenerateOptions(
        out=tmp_path / "a", prompt=PromptOptions(prompt="a red fox"), pipeline=str(sd_folder), count=8, keep=1, steps=6,
        seed=5, adaptive=True, rerank_model=str(dual_folder),
    )  # fmt: skip
    pictures = run(options, events.append)
    assert [picture.kept for picture in pictures] == [True, False]
    assert len(list((tmp_path / "a").rglob("*.png"))) == 2
    notes = [event.text for event in events if isinstance(event, Note)]
    assert (
        "8 candidates, 4 after a third of the steps, 2 after two thirds: 56 rows of the denoiser, 40 saved of 96 (42%)"
        in notes
    )
    steps = next(number for number, event in enumerate(events) if event == Started("generating", 28, "steps"))
    done = next(number for number, event in enumerate(events) if isinstance(event, PictureDone))
    assert sum(event.count for event in events[steps:done] if isinstance(event, Advanced)) == 28
    best = pictures[0]
    (alone,) = draw(sd_folder, tmp_path / "b", PromptOptions(prompt="a red fox"), steps=6, seed=best.seed)
    with Image.open(best.path) as one, Image.open(alone.path) as other:
        assert max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)) <= 1
        assert one.info == other.info


def test_what_adaptive_refuses(sd_folder: Path, dual_folder: Path, tmp_path: Path) -> None:
    for more in ({}, {"keep": 8}, {"keep": 2, "expand": True}):
        with pytest.raises(OptionsError, match="--adaptive"):
            GenerateOptions(out=tmp_path, prompt=PromptOptions(prompt="a"), adaptive=True, **more)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="3 or more"):
        draw(
            sd_folder, tmp_path / "a", PromptOptions(prompt="a"), count=4, keep=1, steps=2, adaptive=True,
            rerank_model=str(dual_folder),
        )  # fmt: skip
    assert not (tmp_path / "a").exists()
