"""Collections of pictures as shards: each picture once, the same rows however they were made, ranked as pictures are."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcond.encode.embedding_shards import read_shard
from clipcond.errors import ConfigError, DataError, ImageError, OptionsError, OutputExists
from clipcond.prompt.infotext import format_infotext
from clipcond.rerank.collection import Collection
from clipcond.rerank.shards import ShardEmbedder
from clipcond.workflows import gallery
from clipcond.workflows.embed import EmbedOptions, EmbedReport, run
from clipcond.workflows.events import Event, Note
from clipcond.workflows.gallery import GalleryOptions
from clipcond.workflows.rerank import RerankOptions
from clipcond.workflows.rerank import run as rerank

pytest.importorskip("pyarrow", reason="pyarrow is not installed")


def save(path: Path, seed: int, prompt: str = "") -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    info = PngInfo()
    if prompt:
        info.add_text("parameters", format_infotext(prompt, "bad", {"Steps": 1, "Seed": 2, "Size": "1x1"}))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((45, 30)).save(path, pnginfo=info)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten pictures in two folders, every other with a prompt, and one file that is none."""
    folder = tmp_path / "pictures"
    for number in range(10):
        save(folder / ("deep" if number % 3 == 0 else "") / f"{number}.png", number, f"a fox {number}" * (number % 2))
    (folder / "4 bad.png").write_text("no picture")
    return folder


def embed(
    out: Path, *sources: Path | str, model: Path, events: Any = lambda event: None, **options: Any
) -> EmbedReport:
    options = {"shard_size": 4, **options}
    return run(EmbedOptions(sources=tuple(map(str, sources)), out=out, model=str(model), **options), events)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_shards_hold_every_picture_once_in_order_and_errors_stand_beside(
    pictures: Path, tmp_path: Path, dual_folder: Path
) -> None:
    report = embed(tmp_path / "out", pictures, model=dual_folder)
    assert (report.pictures, report.new, report.shards) == (10, 10, 3)
    assert report.errors == ((str(pictures / "4 bad.png"), "is not a picture in a format that can be read"),)
    found = [read_shard(tmp_path / "out" / f"0000{number}.parquet") for number in range(3)]
    rows = [row for shard in found for row in shard[0]]
    expected = sorted(path for path in pictures.rglob("*.png") if "bad" not in path.name)
    assert [row.path for row in rows] == list(map(str, expected))
    assert {row.prompt for row in rows} == {None, *(f"a fox {number}" for number in (1, 3, 5, 7, 9))}
    assert (rows[0].width, rows[0].height, len(bytes.fromhex(rows[0].content))) == (45, 30, 20)
    assert not list((tmp_path / "out").glob(".*"))
    document = report.to_json()
    assert json.loads(json.dumps(document))["pictures"] == 10


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bytes(
    pictures: Path, tmp_path: Path, dual_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(tmp_path / "whole", pictures, model=dual_folder)
    write, made = Collection.write, list[int]()

    def stopping(self: Collection, number: int, *args: Any) -> None:
        if number == 1 and not made.count(1):
            made.append(1)
            raise KeyboardInterrupt
        made.append(number)
        write(self, number, *args)

    monkeypatch.setattr(Collection, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path / "out", pictures, model=dual_folder)
    with pytest.raises(DataError, match="lacks 2 of 3 shards; run the same clipcond embed again, it goes on"):
        rerank(RerankOptions(images=(str(tmp_path / "out"),), prompt="a fox", model=str(dual_folder)))
    report = embed(tmp_path / "out", pictures, model=dual_folder)
    assert (report.pictures, report.new, made) == (10, 7, [0, 1, 1, 2])
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_second_run_loads_no_model_and_new_pictures_get_shards_of_their_own(
    pictures: Path, tmp_path: Path, dual_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    embed(out, pictures, model=dual_folder)
    before = contents(out)
    with monkeypatch.context() as patch:
        patch.delattr(ShardEmbedder, "__init__")
        assert embed(out, pictures, model=dual_folder).new == 0
    save(pictures / "0 new.png", 77)
    (pictures / "1.png").unlink()
    notes: list[Event] = []
    report = embed(out, pictures, model=dual_folder, events=notes.append)
    assert (report.pictures, report.new, report.shards) == (11, 1, 4)
    assert Note("1 pictures are new since the last run") in notes
    assert {name: content for name, content in contents(out).items() if name in before} == before
    assert read_shard(out / "00003.parquet")[0][0].path == str(pictures / "0 new.png")


def test_ranked_as_the_pictures_are(pictures: Path, tmp_path: Path, dual_folder: Path) -> None:
    out = tmp_path / "out"
    embed(out, pictures, model=dual_folder, shard_size=64)
    options: dict[str, Any] = {"prompt": "a red fox", "score": "cosine, clipscore", "duplicates": 0.99}
    expected = rerank(RerankOptions(images=(str(pictures),), recursive=True, model=str(dual_folder), **options))
    shutil.rmtree(pictures)
    found = rerank(RerankOptions(images=(str(out),), **options))  # the model is the one that made them
    assert [row.to_json() for row in found.rows] == [row.to_json() for row in expected.rows]
    assert (found.model, found.embedded) == (str(dual_folder), 0)
    assert found.header is not None
    assert found.header.dtype == "float32, kept as float32"
    own = rerank(RerankOptions(images=(str(out),)))
    assert {row.prompt for row in own.scored} == {f"a fox {number}" for number in (1, 3, 5, 7, 9)}


def test_halves_are_near_and_say_so(pictures: Path, tmp_path: Path, dual_folder: Path) -> None:
    embed(tmp_path / "exact", pictures, model=dual_folder)
    embed(tmp_path / "half", pictures, model=dual_folder, precision="bf16", stored="float16", view="pad")
    embed(tmp_path / "half", pictures, model=dual_folder, precision="bf16", stored="float16", view="pad")
    ranking = rerank(RerankOptions(images=(str(tmp_path / "half"),), prompt="a fox"))
    assert ranking.header is not None
    assert ranking.header.dtype == "bfloat16, kept as float16"
    assert "padded" in ranking.header.preprocessing
    exact = {
        row.path: row.cosine for row in rerank(RerankOptions(images=(str(tmp_path / "exact"),), prompt="a fox")).scored
    }
    assert all(row.share_seen == 1 for row in ranking.scored)
    assert {row.path for row in ranking.scored} == set(exact)


def test_tars_are_read_in_place(pictures: Path, tmp_path: Path, dual_folder: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for path in sorted(pictures.glob("*.png")):
            tar.add(path, path.name)
    report = embed(tmp_path / "out", tmp_path / "shard.tar", model=dual_folder)
    assert (report.pictures, len(report.errors)) == (6, 1)
    alone = embed(tmp_path / "alone", *sorted(pictures.glob("*.png")), model=dual_folder)
    assert alone.pictures == 6
    one, other = (read_shard(tmp_path / name / "00000.parquet") for name in ("out", "alone"))
    assert np.array_equal(one[1], other[1])
    assert [row.content for row in one[0]] == [row.content for row in other[0]]
    assert one[0][0].path == str(tmp_path / "shard.tar" / "1.png")


def test_addresses_of_fsspec(pictures: Path, tmp_path: Path, dual_folder: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    memory = fsspec.filesystem("memory")
    memory.put(str(pictures), "/embed-test", recursive=True)
    try:
        report = embed(tmp_path / "out", "memory://embed-test", model=dual_folder)
        some = embed(tmp_path / "some", "memory://embed-test/*.png", model=dual_folder)
        with pytest.raises(ImageError, match="no pictures in memory://nothing"):
            embed(tmp_path / "none", "memory://nothing", model=dual_folder)
    finally:
        memory.rm("/embed-test", recursive=True)
    assert (report.pictures, len(report.errors), some.pictures) == (10, 1, 6)
    embed(tmp_path / "local", pictures, model=dual_folder)
    one, other = (read_shard(tmp_path / name / "00000.parquet") for name in ("out", "local"))
    assert np.array_equal(one[1], other[1])
    assert one[0][0].path.startswith("memory://")


def test_other_weights_and_options_are_refused(
    pictures: Path, tmp_path: Path, dual_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    embed(out, pictures, model=dual_folder)
    before = contents(out)
    for options, message in (
        ({"shard_size": 5}, "was made with shard_size 4"),
        ({"precision": "bf16"}, "was made with precision float32"),
        ({"stored": "float16"}, "was made with stored float32"),
        ({"view": "pad"}, "was made with view None"),
    ):
        with monkeypatch.context() as patch:
            patch.delattr(ShardEmbedder, "__init__")  # told before any model is loaded
            with pytest.raises(ConfigError, match=message):
                embed(out, pictures, model=dual_folder, **options)
    with pytest.raises(ConfigError, match="was made with other weights or preprocessing"):
        embed(out, pictures, model=Path("mini"))
    about = json.loads((out / "embeddings.json").read_text())
    (out / "embeddings.json").write_text(json.dumps({**about, "model": "mini"}))
    with pytest.raises(DataError, match="with other weights than"):
        rerank(RerankOptions(images=(str(out),), prompt="a fox"))
    (out / "embeddings.json").write_bytes(before["embeddings.json"])
    assert contents(out) == before


def test_folders_that_will_not_do(pictures: Path, tmp_path: Path, dual_folder: Path) -> None:
    with pytest.raises(OutputExists, match=r"holds other files and no embeddings\.json"):
        embed(pictures, pictures, model=dual_folder)
    with pytest.raises(ImageError, match=r"gone: there is no such file or folder"):
        embed(tmp_path / "out", tmp_path / "gone", model=dual_folder)
    assert not (tmp_path / "out").exists()
    embed(tmp_path / "out", pictures, model=dual_folder)
    (tmp_path / "out" / "00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"00001\.parquet cannot be read as embeddings"):
        rerank(RerankOptions(images=(str(tmp_path / "out"),), prompt="a fox"))
    (tmp_path / "out" / "embeddings.json").write_text("{}")
    with pytest.raises(DataError, match=r"embeddings\.json cannot be read"):
        embed(tmp_path / "out", pictures, model=dual_folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": ()}, "no pictures are named"),
        ({"engine": "slurm"}, "--engine is slurm; expected one of local, ray"),
        ({"precision": "int8"}, "--precision is int8; expected one of fp32"),
        ({"stored": "int8"}, "--store is int8; expected one of float32, float16"),
        ({"view": "all"}, "--view is all; expected one of crop, pad, tiles"),
        ({"shard_size": 10**6}, "--shard-size is 1,000,000; expected 1 to 100,000 pictures"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"workers": 2}, "--workers is for --engine ray"),
        (
            {"engine": "ray", "device": "cuda:1"},
            "--device is cuda:1; with --engine ray each worker has a GPU of its own",
        ),
        ({"engine": "ray", "workers": 0}, "--workers is 0"),
    ],
)
def test_options_that_will_not_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        EmbedOptions(**{"sources": ("a",), "out": Path("b"), **options})


def test_embeddings_stand_in_place_of_pictures_and_alone(pictures: Path, tmp_path: Path, dual_folder: Path) -> None:
    embed(tmp_path / "out", pictures, model=dual_folder)
    both = (str(tmp_path / "out"), str(pictures))
    with pytest.raises(OptionsError, match=r"out holds embeddings of pictures; name it alone"):
        rerank(RerankOptions(images=both, prompt="a fox"))
    with pytest.raises(OptionsError, match=r"made with their own --precision, --view and --draft"):
        rerank(RerankOptions(images=both[:1], prompt="a fox", view="pad"))


def test_found_in_as_the_pictures_are(pictures: Path, tmp_path: Path, dual_folder: Path) -> None:
    embed(tmp_path / "out", pictures, model=dual_folder, shard_size=64)
    galleries = []
    for source in (tmp_path / "out", pictures):
        options = GalleryOptions(images=(str(source),), model=str(dual_folder), recursive=True, cache=False)
        paths = gallery.find(options, lambda event: None)
        scorer = gallery.load_scorer(options.model, lambda event: None)
        galleries.append(gallery.embed(paths, scorer, options, lambda event: None))
    stored, fresh = galleries
    assert stored.paths == fresh.paths
    assert stored.vectors.equal(fresh.vectors)
    assert (stored.computed, fresh.computed, len(stored.unread)) == (0, 10, 1)
    mini = gallery.load_scorer("mini", lambda event: None)
    with pytest.raises(DataError, match="with other weights than mini; name its model"):
        gallery.embed(stored.paths, mini, GalleryOptions(images=(str(tmp_path / "out"),)), lambda event: None)
