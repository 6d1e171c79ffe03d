"""Search through an index: the same pictures as an exact search, whatever happens to the files in between."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from clipcond.encode.content_key import FileState
from clipcond.errors import ImageError, OptionsError
from clipcond.find.picture_index import PictureIndex
from clipcond.find.segments import SUFFIX
from clipcond.mini import world
from clipcond.rerank.scorer import Scorer
from clipcond.workflows.embed import EmbedOptions
from clipcond.workflows.embed import run as embed
from clipcond.workflows.events import Note
from clipcond.workflows.gallery import GalleryOptions
from clipcond.workflows.search import SearchOptions, SearchResult, run

COLOURS = ("red", "blue", "green", "yellow")


def draw(path: Path, colour: str, seed: int = 0) -> None:
    thing = world.Object(colour=colour, shape="circle", cell="center")
    world.render(world.Scene(background="gray", objects=(thing,)), random.Random(seed)).save(path)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    for number in range(12):
        draw(folder / f"{number:02}.png", COLOURS[number % 4], number)
    return folder


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.load("mini", device="cpu")


@pytest.fixture
def folder(drawn: Path, scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of their own that may be changed, and a cache folder of the test's own."""
    monkeypatch.setenv("CLIPCOND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Scorer, "load", lambda spec: scorer)
    own = tmp_path / "pictures"
    own.mkdir()
    for path in drawn.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    return own


def search(folder: Path, query: str = "a red circle", events=lambda event: None, **options) -> SearchResult:
    cache = options.pop("cache", True)
    options = {"top": 4, "index": True, **options}
    return run(
        SearchOptions(gallery=GalleryOptions(images=(str(folder),), cache=cache), query=query, **options), events
    )


def found(result: SearchResult) -> list[tuple[str, object]]:
    return [(row.path.name, pytest.approx(row.score, abs=2e-4)) for row in result.ranking.kept]  # half precision


def names(result: SearchResult) -> list[str]:
    return [row.path.name for row in result.ranking.kept]


def segments(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "indexes").rglob(f"*{SUFFIX}"))


def test_an_index_finds_what_exact_search_finds(folder: Path, tmp_path: Path) -> None:
    exact, indexed = search(folder, index=False), search(folder)
    assert found(indexed) == found(exact)
    assert exact.index is None
    assert indexed.searched == exact.searched == 12
    use = indexed.index
    assert use is not None
    assert use.recall is not None
    assert (use.recall.pictures, use.recall.words, use.recall.queries) == (1.0, 1.0, 12 + 50)
    assert "100.0% for pictures and 100.0% for words (exact search of 62 queries)" in use.line()
    again = search(folder, exact=True)
    assert again.index is not None
    assert again.index.recall is None
    assert again.ranking.embedded == 0
    assert found(again) == found(exact)
    assert [row.width for row in again.ranking.kept] == [64] * 4
    assert len(segments(tmp_path)) == 1


def test_new_changed_and_deleted_pictures_are_honoured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileState, "settled", lambda state, now: True)
    search(folder)
    draw(folder / "new.png", "red", 99)
    draw(folder / "00.png", "green", 99)  # was red
    (folder / "04.png").unlink()  # was red
    os.utime(folder / "08.png", (1, 1))  # red, touched and the same
    (folder / "broken.png").write_bytes(b"no picture")
    result = search(folder)
    assert result.ranking.embedded == 2
    assert result.searched == 12
    assert set(names(result)[:2]) == {"08.png", "new.png"}
    assert [row.path.name for row in result.ranking.errors] == ["broken.png"]
    assert found(result) == found(search(folder, index=False))
    assert len(segments(tmp_path)) == 2


def test_filters_hold_before_the_nearest_are_chosen(folder: Path) -> None:
    within = search(folder, within="*/0[13579].png")
    assert set(names(within)) == {"01.png", "03.png", "05.png", "07.png"}
    assert within.searched == 5
    os.utime(folder / "03.png", (1e9, 1e9))
    assert names(search(folder, until="2005-01-01")) == ["03.png"]
    assert found(search(folder, min_pixels=64 * 64 + 1)) == []
    assert found(search(folder, min_score=0.99)) == []


def test_segments_of_deleted_pictures_and_many_small_ones_go(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipcond.find.picture_index._MANY", 2)
    monkeypatch.setattr(FileState, "settled", lambda state, now: True)
    for number in range(4):
        draw(folder / f"more-{number}.png", "blue", number)
        index = search(folder)
        assert len(segments(tmp_path)) <= 2
    assert index.searched == 16
    for path in sorted(folder.iterdir())[:13]:
        path.unlink()
    assert search(folder).searched == 3
    assert len(PictureIndex(segments(tmp_path)[0].parent)) <= 5
    assert found(search(folder)) == found(search(folder, index=False))


def test_a_damaged_segment_is_made_again(folder: Path, tmp_path: Path) -> None:
    search(folder)
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes()[:-99])
    notes: list[str] = []
    result = search(folder, events=lambda event: notes.append(event.text) if isinstance(event, Note) else None)
    assert result.searched == 12
    assert result.ranking.embedded == 0  # the embeddings are remembered
    assert any("damaged; its pictures are added anew" in note for note in notes)


def test_a_folder_of_embeddings_is_searched_without_its_pictures(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    out = tmp_path / "embeddings"
    embed(EmbedOptions(sources=(str(folder),), out=out, shard_size=5))
    exact = search(folder, index=False)
    draw(folder / "new.png", "red", 99)
    embed(EmbedOptions(sources=(str(folder),), out=out, shard_size=5))
    for path in folder.iterdir():
        path.unlink()
    result = search(out, top=5)
    assert result.searched == 13
    assert set(names(exact)[:3]) < set(names(result)[:4])
    assert found(result) == found(search(out, top=5, index=False))
    assert [len(PictureIndex(path.parent)) for path in segments(tmp_path)] == [13]
    assert search(out, within="*/new.png").searched == 1


def test_an_index_that_may_not_be_kept_is_one_line(folder: Path) -> None:
    with pytest.raises(OptionsError, match="leave --no-cache out"):
        search(folder, cache=False)
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match="none of the pictures could be read; the first: "):
        search(folder)


def test_killed_while_it_adds_an_index_is_as_good_as_before(tmp_path: Path) -> None:
    """A process that adds segments is killed; what was added is there, and the next adds the rest."""
    script = textwrap.dedent(
        f"""
        import numpy as np
        from pathlib import Path
        from clipcond.find.picture_index import PictureIndex
        from clipcond.find.segments import RECORD
        index = PictureIndex(Path({str(tmp_path)!r}))
        while True:
            rows = np.random.default_rng(len(index)).normal(size=(500, 64))
            records = np.zeros(500, RECORD)
            records["seen"] = np.arange(len(index) + 1, len(index) + 501)
            index.add(rows, ["x"] * 500, records)
            print(len(index), flush=True)
        """
    )
    done = 0
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if int(line) >= done + 1500:
                    break
            child.kill()
        index = PictureIndex(tmp_path)
        assert not index.damaged
        assert len(index) >= done + 1500
        assert sorted(index.index().records("seen")) == list(range(1, len(index) + 1))
        done = len(index)
