"""The job of `clipcond rerank`, without its command."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from clipcond.errors import ConfigError, ImageError, ModelError, OptionsError
from clipcond.workflows.events import Advanced, Event, Finished, Note, Started
from clipcond.workflows.rerank import RerankOptions, run


def test_a_ranking_and_its_events(dual_folder: Path, tmp_path: Path) -> None:
    for name in ("red", "lime", "blue"):
        Image.new("RGB", (32, 32), name).save(tmp_path / f"{name}.png")
    (tmp_path / "empty").mkdir()
    events: list[Event] = []
    images = (str(tmp_path), str(tmp_path / "empty"))
    ranking = run(RerankOptions(images=images, prompt="red", model=str(dual_folder), top=1), events.append)
    assert [row.kept for row in ranking.rows] == [True, False, False]
    assert events == [
        Note(f"no pictures in {tmp_path / 'empty'}; --recursive looks into the folders below"),
        Started(f"loading {dual_folder}"),
        Finished(),
        Started("scoring", 3, "pictures"),
        *[Advanced(1)] * 3,
        Finished(),
    ]


def test_no_picture_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no pictures in .*$"):
        run(RerankOptions(images=(str(tmp_path),), recursive=True))


def test_a_task_ends_where_its_job_fails(dual_folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")
    events: list[Event] = []
    with pytest.raises(ConfigError, match="top is 0"):
        run(RerankOptions(images=(str(tmp_path),), prompt="x", top=0, model=str(dual_folder)), events.append)
    assert events[-1] == Finished()


def test_an_empty_prompt_and_a_missing_model_cost_no_model(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="--prompt is empty; give a text"):
        RerankOptions(images=(str(tmp_path),), prompt=" ")
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")
    with pytest.raises(ModelError, match=r"no model 'hf:\./nowhere': there is no such folder or file"):
        run(RerankOptions(images=(str(tmp_path),), prompt="x", model="hf:./nowhere"))


def test_words_that_the_model_has_never_seen_are_named(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")
    events: list[Event] = []
    run(RerankOptions(images=(str(tmp_path),), prompt="a red fox in the snow, a red circle"), events.append)
    told = [event.text for event in events if isinstance(event, Note)]
    assert told == ["mini has never seen the words fox, snow; it reads nothing there"]
