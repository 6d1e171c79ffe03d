"""Ray's workers: one of them is killed in the midst of its work, and nothing is lost and nothing there twice.

Ray takes half a minute to start its processes, so that this runs only where it is asked for: CLIPCOND_TEST_RAY=1.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipcond.encode.embedding_shards import read_shard
from clipcond.errors import ConfigError
from clipcond.workflows.embed import EmbedOptions, EmbedReport, run

COUNT, SIZE = 120, 10


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--engine ray needs Ray Data \(.*ray.*\): pip install 'clipcond\[ray\]'"):
        run(EmbedOptions(sources=(str(tmp_path),), out=tmp_path / "out", engine="ray"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((400, 400)).save(folder / f"{number:03}.png")
    (folder / "bad.png").write_text("no picture")
    return folder


def embed(out: Path, pictures: Path, model: Path, engine: str, workers: int | None = None) -> EmbedReport:
    options = EmbedOptions(
        sources=(str(pictures),), out=out, model=str(model), shard_size=SIZE, engine=engine, workers=workers  # type: ignore[arg-type]
    )  # fmt: skip
    return run(options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not os.environ.get("CLIPCOND_TEST_RAY"), reason="starting Ray takes long: set CLIPCOND_TEST_RAY=1")
def test_a_killed_worker_costs_no_picture_and_none_is_there_twice(
    pictures: Path, tmp_path: Path, dual_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.data", reason="Ray Data is not installed")
    psutil = pytest.importorskip("psutil", reason="psutil is not installed")
    import ray

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    out, killed = tmp_path / "out", list[int]()
    ray.init(num_cpus=2, log_to_driver=False, logging_level="ERROR", include_dashboard=False)

    def kill() -> None:
        """End a worker for good once the first shard is there."""
        while not list(out.glob("*.parquet")) and not over.is_set():
            time.sleep(0.05)
        for process in psutil.Process().children(recursive=True):
            if "ShardWorker" in " ".join(process.cmdline()) or "MapWorker" in " ".join(process.cmdline()):
                process.kill()
                killed.append(process.pid)
                return

    over = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        report = embed(out, pictures, dual_folder, "ray", workers=2)
    finally:
        over.set()
        killer.join()
        ray.shutdown()
    assert killed, "no worker was found to kill"
    assert (report.pictures, report.shards, len(report.errors)) == (COUNT, COUNT // SIZE + 1, 1)
    paths = [row.path for file in sorted(out.glob("*.parquet")) for row in read_shard(file)[0]]
    assert paths == [str(path) for path in sorted(pictures.glob("[0-9]*.png"))]
    embed(tmp_path / "local", pictures, dual_folder, "local")
    assert contents(out) == contents(tmp_path / "local")
