"""The job of `clipcond rerank`, without its command."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from clipcond.errors import ImageError, ModelError
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


def test_a_task_ends_where_its_job_fails(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")
    events: list[Event] = []
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "open_clip_config.json").write_text("{}")
    with pytest.raises(ModelError, match='has no "model_cfg"'):
        run(RerankOptions(images=(str(tmp_path),), prompt="x", model=str(tmp_path / "model")), events.append)
    assert events[-1] == Finished()
